import type { AtomType } from '../../db/generated/prisma/client.ts'
import type { Sentence } from './text.ts'

/*
 * What single sentences say by themselves. Each rule names what people write in any team's chat when they state a
 * problem, a decision and so on; no rule knows what a team works on.
 */

export interface Cue {
  /** Names the rule in measurements and tests. */
  rule: string
  type: AtomType
  /** Of `Sentence.plain`. */
  pattern: RegExp
  /** Sentences that look alike and say something else. */
  unless?: RegExp
  /** Whether questions count (`only`), do not (left out), or make no difference (`also`). */
  questions?: 'only' | 'also'
  /** Names of things (see `countThings`) that the sentence needs to say something by itself. Left out: 2. */
  minThings?: number
  /** Words. Left out: 5. */
  minWords?: number
}

/** A pattern of whole words. `\b` of JavaScript knows the Latin alphabet only. */
const words = (source: string) => new RegExp(`(?<![\\p{L}\\p{N}_])(?:${source})(?![\\p{L}\\p{N}_])`, 'iu')

/** Kinds of knowledge that people name before they say it: "Decision on X: ...". */
const label = (names: string) =>
  new RegExp(
    `^(?:(?:[\\p{L}']+,? ){0,3}(?:${names})(?: (?:on|for|from|about|of|to|I)(?: [^\\s:.!?]+){1,8}| noticed| learn(?:ed|t))?\\s?[:–—]|(?:${names})\\s?[-–—]\\s)`,
    'iu',
  )

export const labels: { type: AtomType; pattern: RegExp }[] = [
  {
    type: 'DECISION',
    pattern: label('decision|decided|agreed|final decision|conclusion|решение принято|решили|итог'),
  },
  {
    type: 'RISK',
    pattern: label(
      'risk|danger|warning|caveat|watch out|be careful|careful|caution|риск|опасность|осторожно',
    ),
  },
  {
    type: 'IDEA',
    pattern: label('idea|proposal|suggestion|i have an idea|wild idea|crazy idea|идея|предложение'),
  },
  { type: 'REQUIREMENT', pattern: label('requirement|constraint|must[- ]have|требование|условие') },
  { type: 'PATTERN', pattern: label('pattern|a pattern|закономерность') },
  { type: 'BLOCKER', pattern: label('blocker|blocked|блокер') },
  { type: 'SOLUTION', pattern: label('solution|fix|the fix|workaround|решение') },
  {
    type: 'INSIGHT',
    pattern: label(
      'insight|lesson|lesson learned|lesson for (?:me|us)|root cause|cause|data point|finding|takeaway|correction|confirmed|main point|main finding|вывод|причина|наблюдение',
    ),
  },
  { type: 'PROBLEM', pattern: label('problem|issue|bug|alert|incident|проблема|баг') },
  { type: 'QUESTION', pattern: label('question|open question|вопрос') },
]

export const cues: Cue[] = [
  // BLOCKER
  {
    rule: 'blocked',
    type: 'BLOCKER',
    pattern: words(
      "(?:is|are|am|i'm|we're|was|got|been|still|currently|completely) (?:blocked|held up|on hold) (?:by|on|until|till|because|for)|blocks (?:us|me|the|our)|blocking (?:us|me|the release|our)|is a blocker|showstopper",
    ),
    unless: words('non-?blocking|firewall|ad ?block\\w*|event loop|un-?blocked|if|thread|would|could'),
    minThings: 2,
  },
  {
    rule: 'waiting',
    type: 'BLOCKER',
    pattern: words(
      "(?:stuck|blocked|(?:we|i|they)(?: are|'re|'m| am) (?:still )?waiting|still waiting|waiting) (?:for|on|until|till)",
    ),
    unless: words(
      'your|you|reply|answer|response|his|her|thread|lock|event|timeout|input|her answer|while|instead',
    ),
    minThings: 2,
  },
  {
    rule: 'cannot-until',
    type: 'BLOCKER',
    pattern: words(
      "(?:can'?t|cannot|can not|couldn'?t|unable to|impossible to) (?:\\w+ ){0,2}(?:continue|proceed|go on|go live|deploy|release|ship|roll out|rollout|merge|start|begin|finish|launch|upgrade|migrate|test|move) (?:[^.]{0,60} )?(?:until|till|before|unless)",
    ),
    unless: words('you'),
    minThings: 1,
  },
  {
    rule: 'blocked-ru',
    type: 'BLOCKER',
    pattern: words(
      'заблокирован\\p{L}*|блокирует|застрял\\p{L}*|не (?:можем|могу) (?:\\p{L}+ ){1,4}(?:пока|без)|(?:жд[её]м|жду) [^.]{3,60}(?:чтобы|прежде чем|иначе)',
    ),
    minThings: 1,
    minWords: 4,
  },

  // DECISION
  {
    rule: 'decided',
    type: 'DECISION',
    pattern: words(
      "(?:we|team|so|ok|it was|it's|it is|was|been|i've|we've|finally) (?:have |has |just |all |now |finally )?(?:decided|agreed|settled)|decided: |decided to|agreed (?:on|to|that)|we(?:'ve| have)? (?:chose|chosen|picked|opted for|settled on)|our decision|final decision|the decision is",
    ),
    unless: words(
      "if|whether|haven't|not|never|didn't|need to|should|undecided|they|my|he|she|who|i|must be",
    ),
    minThings: 1,
  },
  {
    rule: 'agreed-clause',
    type: 'DECISION',
    pattern: /^(?:agreed|deal|settled|done deal)[,.:;!–—-]+\s+\S+(?:\s+\S+){4,}/iu,
    unless: words('but|if'),
    minThings: 1,
  },
  {
    rule: 'going-with',
    type: 'DECISION',
    pattern: words(
      "let's (?:just )?(?:go|stick|stay|proceed|move|run) (?:with|for|to|ahead with)|(?:we'll|we will|we're|we are|we|then we) (?:go|going|gonna go|sticking|stick) (?:with|for)",
    ),
    unless: words('if|wrong|bed|home|lunch|what'),
    minThings: 1,
  },
  {
    rule: 'let-us',
    type: 'DECISION',
    pattern: words(
      "let's (?:do this|make (?:it|this|the)|use|keep|drop|remove|accept|switch|replace|rename|postpone|ship|release|merge|limit|disable|enable|standardi[sz]e|revert|allow|set)",
    ),
    unless: words('if|maybe|try|first see|could|say|in mind|in touch|you'),
    minThings: 1,
  },
  {
    rule: 'from-now-on',
    type: 'DECISION',
    pattern: words(
      "from now on|starting (?:today|tomorrow|monday|next week|in \\w+),? (?:we|all|every|the)|(?:we'll|we will|we're going to|we are going to|we won't|we will not) (?:\\w+ )?(?:use|switch|move|drop|stop|keep|remove|replace|support|migrate|deprecate|adopt|require|introduce|postpone|skip|offer|charge|rename|turn (?:on|off))",
    ),
    unless: words('if|maybe|probably|might|may|when|eventually|hopefully|hope|think|guess|or'),
    minThings: 1,
  },
  {
    rule: 'approved',
    type: 'DECISION',
    pattern: words(
      '(?:has|have|was|were|been|is|management|finance|legal|board) (?:approved|signed off|given (?:us )?the go-?ahead)|(?:is|are|was|been) (?:postponed|cancelled|canceled|rejected|dropped) (?:to|until|because|by|in favou?r)',
    ),
    unless: words("if|once|when|until|not|n't|pr|pull request|after|issue|should"),
    minThings: 2,
  },
  {
    rule: 'decided-ru',
    type: 'DECISION',
    pattern: words(
      '(?:мы )?(?:решили|договорились|постановили|приняли решение)|давайте (?:сделаем|использовать|возьм[её]м|оставим|перейд[её]м|так и)|бер[её]м|остановились на',
    ),
    unless: words('не решили|если|может|решили проблему'),
    minThings: 1,
    minWords: 4,
  },

  // QUESTION
  {
    rule: 'anyone-knows',
    type: 'QUESTION',
    pattern: words(
      "^(?:(?:[\\w']+[ ,:.–-]+){0,6})?(?:(?:does|do|did|has|have|can|could|is|would) (?:somebody|someone|some one)|(?:does|do|did|has|have|can|could|is|would)? ?(?:anyone|anybody|any one|any body)) (?:else )?(?:here )?(?:know|knows|remember|remembers|tell me|tell|explain|have|has|had|figured|found|used|tried|using|managed|seen|got|aware|familiar|point)",
    ),
    unless: words(
      "know anything|any favou?rites?|glad|i'm sure|that'?s how|time|a minute|moment|lunch|if anyone|if someone|when someone|experience with this|let me know",
    ),
    questions: 'also',
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'question-word',
    type: 'QUESTION',
    pattern:
      /^(?:(?:\w+[ ,:–-]+){0,4})?(?:how (?:do|can|could|should|to|does|would|will|is|are|did|long|many|much|come|often|about)|why|what (?:is|are|does|do|should|would|will|happens|happened|causes|about|exactly|kind|the best)|what's|which|who (?:decides|owns|is responsible|knows|maintains|can|has|should)|where (?:is|are|can|do|does|should|did)|when (?:will|does|do|is|should|did|are)|is it (?:true|possible|ok|safe|normal|allowed)|is there (?:a|an|any|some|no)|are there any|should (?:we|i|our|the|it|an?)|do (?:we|all|our|the)|does (?:the|our|it|this|\w+)|did (?:we|the)|can (?:i|we|one|the|it|our)|could (?:i|one)|are we|is (?:the|our)|has (?:the|our)|have we|has anyone) /iu,
    unless: words(
      "they|them|asking|i mean|i know|does that mean|such an?|questions? here|(?:noob|newbie|quick|stupid|dumb|syntax) questions?|somebody here|someone here|i ask|problem here|wrong here|^or|you|your|u|ur|did it work|right|are we done|how are|what's up|how's it|why not|what if|how about|anyone (?:around|here|online|up)|tell (?:her|him|them)|take this one|help|lol|wtf|hell",
    ),
    questions: 'only',
    minThings: 1,
    minWords: 6,
  },
  {
    rule: 'how-do-you',
    type: 'QUESTION',
    pattern:
      /^(?:(?:\w+[ ,:–-]+){0,3})?(?:how (?:do|can|would|should) (?:you|u|y'all)|(?:do|does|would) (?:you|u) (?:guys |all )?know (?:how|why|what|where|which|if|whether|of)|what do you (?:use|recommend|suggest)|which .{3,40} do you (?:use|recommend|suggest)) /iu,
    unless: words('my mistake|feel|mean|think so|spell|how do you do'),
    questions: 'only',
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'asks-whether',
    type: 'QUESTION',
    pattern: words(
      "(?:asks?|asked|asking|wondering|wonders?|want(?:s|ed)? to know|like to know|trying to (?:find out|figure out|understand)|unclear) (?:me |us )?(?:whether|if|how|why|what|which|where|who|when)|(?:not sure|no idea) (?:how to|why)|don'?t know (?:how to|why|who's|who is|which)",
    ),
    unless: words("you|your|that'?s|me what|lol|i will|don't ask|do with|i mean"),
    minThings: 2,
    minWords: 7,
  },
  {
    rule: 'question-ru',
    type: 'QUESTION',
    pattern: words(
      'почему|зачем|кто-нибудь (?:знает|помнит|сталкивался|пробовал|в курсе)|кто (?:знает|отвечает|решает)|как (?:\\p{L}+ ){0,2}(?:можно|сделать|настроить|исправить|правильно|лучше|решить)|подскажите|есть ли|можно ли|нужно ли|стоит ли|сколько|какой|какая|какие',
    ),
    unless: words('как дела|ты|тебе|вы'),
    questions: 'only',
    minThings: 2,
    minWords: 4,
  },

  // IDEA
  {
    rule: 'what-if-we',
    type: 'IDEA',
    pattern: words(
      'what if (?:we|the \\w+ (?:could|were)|there (?:was|were))|how about (?:we|using|a|an|adding|making|letting|\\w+ing)|what about (?:\\w+ing|(?:\\w+ ){0,3}\\w+ with)',
    ),
    unless: words("you|going|tonight|tomorrow|lunch|don't|doesn't|that|this"),
    questions: 'also',
    minThings: 1,
  },
  {
    rule: 'we-could',
    type: 'IDEA',
    pattern: words(
      "we (?:could|might want to|may want to)(?! (?:not|n't|see|hear|have been|be (?:wrong|right)))|could(?:n't)? (?:we|the|our|each|every|it)(?: not)?(?: also| just| simply)? (?!be (?:a|the|that|wrong|due)|have been)\\w+|(?:maybe|perhaps) we (?:should|can|could)|why (?:don't|not) (?:we|just)|we should (?:probably|maybe|consider|really)",
    ),
    unless: words(
      'you|help (?:you|me|him|her|them)|talk|meet|chat|see if|lunch|if only|wish|not help|take a look',
    ),
    questions: 'also',
    minThings: 1,
  },
  {
    rule: 'offers',
    type: 'IDEA',
    pattern: words(
      'i (?:can|could) (?:also )?(?:add|give|make|change|set up|write|build|extend|provide|expose|split|move|switch|replace)(?! (?:out|you|it|that|this|a (?:try|call|look|hand)))',
    ),
    unless: words("you|your|if|see|reproduce|not|how|where|when i|that i|so i|i can't"),
    minThings: 3,
    minWords: 8,
  },
  {
    rule: 'proposes',
    type: 'IDEA',
    pattern: words(
      "i(?:'d| would) (?:suggest|propose|recommend|prefer|vote|like to (?:move|see|think about|propose|change|add|replace|introduce))|i(?:'d| would) (?!like|love|need|say|have|be|been|hate|appreciate|assume|guess|think|expect|imagine|rather|never|want|know|see|get)\\w+ (?:an?|the|it|them|each|every|all|both|only)|i (?:suggest|propose|have an idea|want to (?:move|switch|replace|migrate|introduce|get rid))|my (?:suggestion|proposal|idea) (?:is|would be)|(?:would|might|could) be (?:nice|good|great|cool|useful|helpful|better|worth|awesome) (?:to|if|for)|(?:might|would) be worth \\w+ing|worth (?:trying|considering|adding)",
    ),
    unless: words(
      'you|to know|to hear|help me|would rather not|try it|your|if someone could|if anyone|my|meet',
    ),
    questions: 'also',
    minThings: 2,
  },
  {
    rule: 'idea-ru',
    type: 'IDEA',
    pattern: words(
      '(?:а )?что если (?:мы|нам|сделать|использовать|добавить|просто)|может(?:,)? (?:быть )?(?:лучше|стоит|сделаем|сделать|добавим|попробуем)|предлагаю|можно было бы|было бы (?:хорошо|здорово|неплохо)|давайте попробуем|почему бы не',
    ),
    unless: words('обед|кофе|встретиться|созвон\\p{L}*'),
    questions: 'also',
    minThings: 2,
    minWords: 4,
  },

  // REQUIREMENT
  {
    rule: 'must',
    type: 'REQUIREMENT',
    pattern: words(
      '(?:must|has to|have to|needs to|need to|shall)(?: not| never| always| also| only| all| first| be able to)* (?:be |stay |remain )?\\w+|must never|is (?:required|mandatory|obligatory)|are (?:required|mandatory)|(?:is|are) not allowed to|may only|under no circumstances|no \\w+ may|nothing else may|there must',
    ),
    unless: words(
      "you|u|i|i'll|i'd|i'm|he|must have|must be (?:a|an|the|that|some\\w*|because|due|related|caused|missing|wrong|doing|using|getting|\\w+ing|nice|hard|there|so|in|on|my|your)|don'?t (?:have|need) to|doesn'?t (?:have|need) to|do i|do we|does it|might|would have to|have to admit|have to say|have to go|if (?:we|they) (?:must|have to|need to)|we'll|we need (?:to )?(?:check|look|talk|see|discuss|wait|help|find out|know|ask|go|meet|start)|they need|need to know|they have to|we have to (?:go|wait|check|look|see|talk)|why|how|because|cuz|may need|careful|in theory|if it has to|has to (?:wait|go)|had to|no need|need to (?:have|get|take|be|see|check)|just|let me|has to do with|have to do with|nothing to do|annoying|seems|apparently|guess|think|probably|maybe",
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'we-need',
    type: 'REQUIREMENT',
    pattern: words(
      'we (?:really |also |still |will )?need (?:a|an|one|two|some|at least|to (?:lock|add|make|store|keep|send|use|support|have|ensure|limit|split|separate|move|replace|be able|avoid|handle|migrate|guarantee))',
    ),
    unless: words(
      "you|help|volunteer\\w*|if|hand|minute|moment|coffee|meeting|think|probably|maybe|why|don't|know|decide",
    ),
    minThings: 2,
  },
  {
    rule: 'must-ru',
    type: 'REQUIREMENT',
    pattern: words(
      '(?:должен|должна|должно|должны|обязан\\p{L}*|необходимо|обязательно (?:\\p{L}+ть)|нельзя|(?:надо|нужно) (?:чтобы|\\p{L}+ть))',
    ),
    unless: words('я|мне|тебе|ты|вы|вам|должно быть|наверное|если|подождать|посмотреть|проверить'),
    minThings: 2,
    minWords: 4,
  },

  // RISK
  {
    rule: 'names-risk',
    type: 'RISK',
    pattern: words(
      "(?:the|a|big|real|main|only|my|there's a|there is a) (?:risk|danger) (?:is|of|that|here|i see)|that's a risk|risk (?:of|that)|risks? (?:\\w+ing)|(?:my|one|only|the) concern is|(?:my|one|only|the) (?:worry|fear|concern) is|i(?:'m| am) (?:worried|afraid|concerned|scared) (?:that|about)|(?:would|could|can) (?:be )?(?:dangerous|catastrophic|a disaster|a security (?:hole|issue|risk))",
    ),
    unless: words(
      'i can live with|no risk|low risk|without (?:the )?risk|at your own risk|worth the risk|risk free|happy to|can you',
    ),
    minThings: 2,
  },
  {
    rule: 'might-break',
    type: 'RISK',
    pattern: words(
      "(?:might|may|could|can|will|would|'d|'ll) (?:(?:also|still|then|easily|just|silently|accidentally|suddenly|even|probably|simply|not) ){0,2}(?:break|fail|crash|leak|lose|corrupt|expire|explode|overload|conflict|collide|block|run out|be lost|go wrong|blow up|stop working|lock (?:us|everybody|the|people) out|slow (?:\\w+ )?down|delete|overwrite|time out|be overwritten|get lost|cause (?:\\w+ )?(?:problems|issues|trouble|data loss|downtime|outage))",
    ),
    unless: words(
      "see what|see how|you|your|won't|wouldn't|not|never|try|if i|i will|i'll|hopefully|that's why|because|so that|prevent\\w*|how|why|would have|could have|it will fail|i can|i could|error|always",
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'otherwise',
    type: 'RISK',
    pattern: words(
      '(?:otherwise|or else)[, ]+(?:(?:the|a|an|our) \\w+|it|we|they|nobody|anyone|anybody|everyone|everybody|no one|people|\\w+s)(?: \\w+){0,3} (?:will|would|could|can|can.t|cannot|do not|don.t|doesn.t|won.t|is|are|gets?|loses?|fails?|breaks?)(?: [^.]+)',
    ),
    unless: words(
      "you|u|i|i'd|i'll|try|use|works? (?:fine|well|great)|is (?:fine|ok|good)|it's (?:fine|ok|good)|unless otherwise|looks good|let me|should (?:be|work)|just",
    ),
    minThings: 1,
  },
  {
    rule: 'if-then-harm',
    type: 'RISK',
    pattern:
      /(?:^|[,:;] |and |so )(?:if|once|unless) [^?]{5,120}?(?:,|then| )\s*(?:[^?]{0,80}?)(?:(?:nobody|no one) (?:will|can|could|would|is|\w+s)|no \w+ can|we (?:lose|risk|run out|will (?:lose|stop)|would lose|can't|cannot|won't)|everything (?:breaks|stops|fails)|(?:will|would|'ll|'d|may|might|could) (?:\w+ ){0,2}(?:fail|break|lose|crash|stop|leave|leak|be (?:wrong|lost|gone|broken|down|locked|blocked|corrupt\w*|skipped|charged)|run out|never|miss|complain)|(?:are|is) (?:wrong|gone|lost) without|angry)(?![\p{L}])/iu,
    unless: words(
      "you|your|u|i will|i'll|i get|i run|then try|works|let me know|please|should|works fine|not (?:be )?a problem|no problem|fixed|thanks|whatever",
    ),
    minThings: 2,
    minWords: 8,
  },
  {
    rule: 'expires',
    type: 'RISK',
    pattern: words(
      '(?:(?:goes|is|are|will be|be) (?:out of support|end[- ]of[- ]life|eol|deprecated|discontinued)|expires?|runs? out|shuts? down|will be (?:shut down|switched off|removed|retired|forced)) (?:on|in|at the|by|from|soon|next)',
    ),
    unless: words('you|your|if|i|battery|room|session|token|time'),
    minThings: 2,
  },
  {
    rule: 'what-if-somebody',
    type: 'RISK',
    pattern: words(
      'what (?:if|happens if|happens when) (?:somebody|someone|a|an|the|two|both|they|users?|customers?|people|it) [^?]{10,}',
    ),
    unless: words('you|your|i|my|could|should|would be'),
    questions: 'also',
    minThings: 2,
    minWords: 9,
  },
  {
    rule: 'risk-ru',
    type: 'RISK',
    pattern: words(
      'есть риск|риск (?:в том|того|что)|опасно|опасаюсь|боюсь(?:,)? что|(?:может|могут|можем) (?:\\p{L}+ ){0,2}(?:сломать\\p{L}*|упасть|потерять\\p{L}*|отвалиться|зависнуть|пропасть)|иначе',
    ),
    unless: words('не опасно|ты|вы|если не сложно'),
    minThings: 2,
    minWords: 4,
  },

  // PATTERN
  {
    rule: 'every-time',
    type: 'PATTERN',
    pattern: words(
      '(?:every|each) (?:single )?time (?:i|we|you|they|it|the|a|someone|somebody|in|when|this|that)|when ?ever (?:i|we|they|it|the|a|someone|somebody|you)|always (?:happens|fails|breaks|crashes|when|after|the same)|keeps? (?:on )?(?:failing|crashing|breaking|happening|disconnecting|asking|restarting|dropping|freezing|coming back|losing|throwing|getting|hanging)|again and again|over and over|time and again|happens (?:again|every|each|always|whenever|regularly)|(?:second|third|fourth|fifth|2nd|3rd|4th|5th) time (?:this|since|in|that)|same (?:lesson|mistake|pattern|story|problem|thing|bug) (?:as|again|every)',
    ),
    unless: words(
      'will be|would|could|should|you|your|wants?|if|next time|works|fixed|asks (?:if|whether)|to avoid|tried|try',
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'every-period',
    type: 'PATTERN',
    pattern:
      /(?:^|[,:;] |and again,? )(?:(?:like )?(?:every|each) (?:single )?(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:like )?every (?:morning|night|evening|month|week|weekend|hour|year|few (?:days|hours|minutes|weeks)|\d+ (?:days|hours|minutes|weeks)|other (?:day|week)))(?: [^.]{15,}|: [^.]{15,})/iu,
    unless: words("you|would|could|should|will|meeting|standup|stand-up|i go|holiday|we meet|let's|i run"),
    minThings: 2,
    minWords: 8,
  },
  {
    rule: 'seen-again',
    type: 'PATTERN',
    pattern: words(
      "(?:is|are|it's|and|happening|broken|down|failing) (?:once )?again,? (?:like|as|just like|same as|the same)|same as (?:last|yesterday|the week|before|on)|like (?:last|every) (?:week|time|month|monday|tuesday|wednesday|thursday|friday)|(?:of|from) our (?:\\w+ )?(?:bugs|outages|incidents|problems) (?:happened|were|are|come|came)",
    ),
    unless: words('you|would|could|should|works|\\bfun\\b|feel'),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'again-ru',
    type: 'PATTERN',
    pattern: words(
      'каждый раз|всякий раз|постоянно (?:падает|ломается|зависает|теряется|отваливается)|снова и снова|каждый (?:понедельник|вторник|четверг|день|месяц)|каждую (?:ночь|неделю|среду|пятницу|субботу)|кажд(?:ое|ое) (?:утро|воскресенье)|всегда (?:когда|после|падает|ломается)',
    ),
    unless: words('ты|вы|если|будем|созвон\\p{L}*|встреча\\p{L}*'),
    minThings: 2,
    minWords: 4,
  },

  // SOLUTION
  {
    rule: 'fixed-by',
    type: 'SOLUTION',
    pattern: words(
      '(?:fixed|solved|resolved|sorted|worked around) (?:it |this |that |(?:the|my|our|a) (?:\\w+ ){1,3})?(?:by|with|using|in|via)|(?:the|my|a|one|quick|temporary|only|real|proper) (?:fix|solution|workaround|trick|remedy) (?:is|was|for (?:this|that|it|the \\w+) (?:is|was)|would be)|(?:what|that) (?:worked|helped|did the trick|fixed it|solved it) (?:for me|was|is)|(?:the|this|that|a|our|\\w+) fix(?:es)? (?:is|are|went|has been|was|for .{3,40} is) (?:live|out|merged|deployed|up|in)|(?:fixed|patched) (?:and|\\+|&) (?:deployed|released|merged|shipped)|(?:solved|fixed) (?:my|the|our) (?:problem|issue|bug|error)',
    ),
    unless: words(
      "help from|thanks to|not|n't|isn't|never|if|how|what's|what is|hope|should be fixed|no|let me know|any|you|will be fixed|need|someone|looking for|without|until|after",
    ),
    minThings: 1,
  },
  {
    rule: 'now-live',
    type: 'SOLUTION',
    pattern: words(
      '(?:fix|index|patch|change|update|migration|hotfix|version|release|build|feature|handler|cache|\\w+) (?:\\w+ ){0,4}(?:is|are|went|has been|was|have been) (?:now )?(?:live|in production|deployed|rolled out|in testflight|shipped|released|merged) (?:since|now|to|with|and|for|on|in|as)|now (?:takes|uses|sends|waits|reads|stores|handles|checks|returns|runs) (?:the|a|an|only|all|from|in|with|\\d)',
    ),
    unless: words(
      "not|n't|when|if|will|until|once|before|going to|should|you|would|are live|ready|soon|after",
    ),
    minThings: 3,
    minWords: 7,
  },
  {
    rule: 'fixed-ru',
    type: 'SOLUTION',
    pattern: words(
      '(?:исправил\\p{L}*|починил\\p{L}*|решил\\p{L}* (?:проблему|так)|помог(?:ло|ла|ли)?|решается|лечится) [^.?]{5,}|обходное решение|выход такой',
    ),
    unless: words('не|если|как|помоги\\p{L}*|решили что'),
    minThings: 2,
    minWords: 4,
  },

  // INSIGHT
  {
    rule: 'turns-out',
    type: 'INSIGHT',
    pattern: words(
      "turns out|turned out|it appears that|the (?:real |root |actual |main )?(?:cause|reason|culprit|root cause) (?:is|was|for (?:\\w+ ){1,6}(?:is|was)|why)|(?:problem|issue|bug|error|failure)s? (?:is|was|are|were) (?:caused by|due to|because|that)|(?:is|was|are|were) caused by|(?:that's|this is|it's|it is|it was|that was|which is) (?:because|due to)|found out (?:that|why|how)|i (?:have )?(?:learned|learnt|discovered|noticed|realised|realized|figured out|found)(?: out)? (?:that|why)|the difference is|(?:is|are|works?) (?:that way )?by design|what happens is",
    ),
    unless: words(
      "if|you|i think|suspect|i am asking|i ask|i'm asking|whether|any idea|wondering|don't know|no idea|maybe|perhaps|might|could be|probably|let me know|can you|would|guess|not sure|haven't|as it turns out not",
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'measured-share',
    type: 'INSIGHT',
    pattern: words(
      '(?:only |about |roughly |almost |over |around |the \\w+ )?\\d+(?:[.,]\\d+)? ?% of (?:the |our |all |my |new |these |those )?\\w+|(?:rate|ratio|average|median|mean|p\\d\\d|share|latency|throughput|uptime)(?: \\w+){0,6} (?:is|was|are|of|at|dropped|fell|rose|went)(?: \\w+){0,3} \\d[\\d.,]*',
    ),
    unless: words(
      "i'm|you|your|would|should|must|has to|need|alert|threshold|charged|discount|off|refund|want|if|battery|sure|i|could|under|below",
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'measured-change',
    type: 'INSIGHT',
    pattern: words(
      'from \\d[\\d.,]* ?\\w{0,8} (?:down |up )?to \\d[\\d.,]*|\\d[\\d.,]* ?(?:%|\\w{1,8}) (?:faster|slower|more|less|fewer|smaller|larger|bigger|cheaper|better|higher|lower)|\\d+x (?:faster|slower|more|less|smaller)|(?:takes|took|needs|needed|lasts|uses|used)(?: \\w+){0,3} \\d[\\d.,]* ?(?:ms|s|sec|seconds|min|minutes|h|hours|days|mb|gb|kb)(?: [^.]{0,80})? (?:instead of|compared (?:to|with)|before|rather than)|i (?:tested|measured|benchmarked|profiled|timed|calculated|compared) [^.]{10,}\\d',
    ),
    unless: words(
      'would|should|could|will|can you|do you|you|try|must|has to|need|if|\\$|please|between|page \\d',
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'people-understood',
    type: 'INSIGHT',
    pattern: words(
      '(?:nobody|no one|most|all|half|none|\\d+|two|three|four|five|several|many)(?: of (?:the|our))? (?:users|customers|people|testers|participants|clients|visitors|teams) (?:\\w+ )?(?:understood|use|used|want|wanted|prefer|preferred|said|expect|expected|found|leave|left|never|quit|stop|stopped|thought|clicked)',
    ),
    unless: words('you|would|should|must|could|lol|if'),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'turned-out-ru',
    type: 'INSIGHT',
    pattern: words(
      'оказалось|оказывается|выяснил(?:ось|и|а)?|причина (?:в|была|оказалась)|дело (?:было )?в том|проблема (?:была )?в|из-за того(?:,)? что|потому что',
    ),
    unless: words('если|может|наверное|не знаю|непонятно|ты|вы'),
    minThings: 2,
    minWords: 4,
  },

  // PROBLEM
  {
    rule: 'reported',
    type: 'PROBLEM',
    pattern: words(
      '(?:getting|got|have|received|had|seeing) (?:\\w+ ){0,2}(?:reports|complaints|tickets)|(?:users?|customers?|clients?|people|ppl|folks|testers?|visitors?|members?|subscribers?|readers?|owners?|partners?|students?|players?|somebody|someone|several|many|they)(?: \\w+){0,5} (?:(?:complain|report)(?:s|ed|ing)?|(?:say|says|said|tells?|told|writes?)(?: me| us)? (?:that|the|they))|(?:the|a|an|our) [^,.?]{2,40} (?:says|said|reports|reported|complains) that',
    ),
    unless: words(
      'doc|docs|documentation|readme|manual|spec|error says|message says|log says|it says|correct now|works now|happy|love|liked|loves|thanks|if|would|could|you|must|legal|law|article|website|wiki|google|fine',
    ),
    minThings: 2,
    minWords: 7,
  },
  {
    rule: 'gets-error',
    type: 'PROBLEM',
    pattern: words(
      "(?:i|we|it|he|she|they|users?|customers?)(?:'m|'re|'s| am| are| is|'ve| have| keep| always| still| also| just| only| now)* (?:get|gets|got|getting|see|seeing|face|facing|hit|hitting|receive|receiving|receives|run into|running into|ran into|encounter|encountering|having|have|has|experiencing)(?: \\w+){0,6} (?:error|errors|exception|exceptions|crash|crashes|failure|failures|problem|problems|trouble|issue|issues|timeout|timeouts|segfault|warning|warnings|null|undefined)|(?:it|this|that|which|and) (?:gives?|throws?|returns?|gave|threw|shows?|says?)(?: me| us)?(?: \\w+){0,4} (?:error|exception)|(?:throws?|gives?|returns?|raises?|fails? with|failed with|crash(?:es|ed)? with) [^.]{0,60}(?:error|exception|\\b[45]\\d\\d\\b|code \\d+)",
    ),
    unless: words(
      'no (?:error|errors|problem|problems|issue|issues)|not (?:a|the) problem|without (?:error|errors|problem|problems|issue|issues)|any (?:issue|issues|problem|problems)|if (?:you|it|there|i|we)|you|your|same (?:problem|issue|error)|this (?:problem|issue|error|exception)|fixed|solved|anymore|used to|had the same|never had',
    ),
    questions: 'also',
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'cannot-do',
    type: 'PROBLEM',
    pattern: words(
      "(?:i|we|users?|customers?|people|ppl|he|she|they)(?: still| also| just)? (?:can(?:no|')?t|can not|could(?: not|n't|nt)|am unable to|are unable to|'m unable to|'m not able to|am not able to|are not able to)(?: even| seem to| really)? (?:\\w+ )?(?:open|connect|find|see|log|login|reach|start|install|build|run|load|access|use|get|resolve|read|save|boot|print|mount|send|receive|sign|tell|compile|play|select|scroll|click|upload|download|import|export|update|upgrade|deploy|debug|make)|unable to \\w+",
    ),
    unless: words(
      'if|you|your|help you|find (?:it|that|the answer|anything)|tell you|see (?:why|how|that|it|any)|make it (?:today|tomorrow|to)|would|could you|wait|yet|say|remember|think|until|recommend|without|because|fixed|solved|so that',
    ),
    questions: 'also',
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'fails',
    type: 'PROBLEM',
    pattern:
      /(?<![\p{L}\p{N}_])(?:the|my|our|its?|\w+s|all|some|this|that|and|\w{4,}) (?:[\w'-]+ ){0,5}(?:(?:do|does|is|are|did|has|have|was|were)(?:n't|nt| not) (?:\w+ ){0,1}(?:work|working|start|starting|load|loading|open|opening|connect|connecting|respond|responding|show|showing|arrive|arriving|update|updating|compile|compiling|build|building|install|installing|display|displaying|detect\w*|recogni[sz]\w*|render\w*|boot\w*|sync\w*)|stop(?:s|ped) (?:working|responding)|fails?(?: at| to| on| with| when| after| for| because|[,.]|$)|failed (?:to|with|on|at|after)|is failing|are failing|keeps failing|crash(?:es|ed)|is crashing|hangs|freezes|(?:is|are|gets?|got) (?:broken|stuck|corrupted|lost|delayed|duplicated|sent twice)|is down|are down|times out|(?:come|comes|came|arrive|arrives|arrived) (?:in )?(?:\w+ )?(?:late|twice)|(?:hours|minutes|days) late|gets delayed|never (?:got|arrived|received|came|reached))(?![\p{L}])/iu,
    unless: words(
      "you|your|u|if|unless|would|could|might|may|should|will|fixed|solved|resolved|no longer|works? (?:now|again)|not a single|try|tried|maybe|make sure|otherwise|guess|why|whether|be careful|never fails|without fail|in case|does that|did that|that's why|calm down|slow down|write down|broke down|is down to|sit down|thought",
    ),
    questions: 'also',
    minThings: 2,
    minWords: 5,
  },
  {
    rule: 'error-output',
    type: 'PROBLEM',
    // Within the text as it was written: code is masked in `plain`.
    pattern:
      /(?:\b[A-Z]\w*(?:Error|Exception)\b|\b(?:ERROR|FATAL|PANIC|E_[A-Z]+|ERR_[A-Z_]+)\b|\bSegmentation fault\b|\berror: |\bfailed with (?:exit )?code\b)/u,
    unless: words('you|your|try|if|fixed|solved|should|would|catch|means|when you|because'),
    questions: 'also',
    minThings: 1,
    minWords: 1,
  },
  {
    rule: 'nothing-happens',
    type: 'PROBLEM',
    pattern: words(
      '(?:then |and |but |, )?nothing (?:arrives|happens|works|shows|comes|loads|changes|appears)(?: \\w+)*',
    ),
    unless: words('you|your|if|fixed|would|could|should|will'),
    minThings: 1,
    minWords: 7,
  },
  {
    rule: 'too-much',
    type: 'PROBLEM',
    pattern: words(
      "(?:is|are|was|were|takes|took|far|way|it's) (?:far |way |much |just |super |really )?too (?:slow|late|long|big|large|small|heavy|expensive|complicated|difficult|noisy|low|high|often|much)|(?:people|ppl|users|customers|clients|nobody|no one|they)(?: \\w+){0,4} (?:can'?t|can hardly|cannot|hate|hates|struggle|struggles|get confused|gave up|give up|quit)|(?:can|could) hardly",
    ),
    unless: words(
      "you|your|if|would|not too|isn't too|never too|it's too late|fixed|i|sorry|could be|might|may|should|otherwise",
    ),
    minThings: 2,
    minWords: 6,
  },
  {
    rule: 'fails-ru',
    type: 'PROBLEM',
    pattern: words(
      'не (?:работает|работают|отвечает|отвечают|открывается|запускается|загружается|грузится|приходит|приходят|приходило|собирается|подключается|видит|находит|сохраняется)|(?:выдаёт|выдает|показывает|вылетает|получаю|ловлю|пишет) (?:\\p{L}+ ){0,3}ошибк\\p{L}*|(?:упал|падает|сломал|завис|отвалил|пропадает)(?:\\p{L}*)|не (?:могу|получается|уда[её]тся|выходит) \\p{L}+ть\\p{L}*|жалуются',
    ),
    unless: words('если не|если бы|может|уже работает|исправ\\p{L}*|починил\\p{L}*|ты|вы|найти время'),
    questions: 'also',
    minThings: 2,
    minWords: 3,
  },
]

/** Whether the sentence says why: the sign of an explanation. */
export const tellsCause = ({ plain }: Sentence): boolean => causal.test(plain)
const causal =
  /(?:(?:,|;| –| -) ?(?:so|which means|which is why|hence|therefore)|(?<![\p{L}])(?:because|cuz|cause of|since the|since it|due to|therefore|that's why|so it|meaning that|потому что|поэтому|из-за))(?![\p{L}])/iu
