import { z } from 'zod'
import { AtomType } from '../../db/generated/prisma/enums.ts'
import { atomLinkTypes } from '../extractor.ts'

/*
 * The shape of a model's answer. Citations stand before what is said on their ground: a model writes from left to right,
 * and so finds the evidence first.
 *
 * Shape only, no limits of numbers or lengths: OpenAI's strict mode refuses some of them, and one number out of range
 * should cost its item and not the whole answer. Those are the rules of read.ts.
 */

const confidence = z.number().describe('0..1: how sure you are, by what the messages say')

const topic = z.object({
  key: z.string().describe('of a topic that is given, its key; of a new one, n1, n2, ...'),
  name: z.string().describe('2 to 5 words; of a topic that is given, its name'),
  description: z.string().describe('one sentence that says what belongs to it'),
  keywords: z.array(z.string()).describe('3 to 8 words that are typical for it, most typical first'),
  confidence,
  messages: z.array(z.string()).describe('keys of all messages that belong to it'),
})

const citation = z.object({
  message: z.string().describe('key of the message'),
  quote: z.string().describe('exact copy of a piece of its text, at least a few words, unchanged'),
})

const atom = z.object({
  key: z.string().describe('x1, x2, ...'),
  topic: z.string().nullable().describe('key of the topic that it belongs to, null if none'),
  citations: z.array(citation).describe('at least one: the pieces that show it'),
  type: z.enum(AtomType),
  title: z.string().describe('a headline of its own, at most 80 characters'),
  content: z.string().describe('1 to 4 sentences that are understood without the conversation'),
  confidence,
})

const link = z.object({
  from: z.string().describe('key of an atom, new or given'),
  type: z.enum(atomLinkTypes),
  to: z.string().describe('key of another atom, new or given'),
  strength: z.number().nullable().describe('0..1, null if you cannot say'),
})

/** The one definition: what is asked of the provider, told to the model, and checked. Unknown properties are ignored. */
export const answerSchema = z.object({ topics: z.array(topic), atoms: z.array(atom), links: z.array(link) })
export type Answer = z.infer<typeof answerSchema>

/** As the providers are given it. */
export const answerJsonSchema: { name: string; json: Readonly<Record<string, unknown>> } = {
  name: 'extraction',
  json: jsonSchemaOf(answerSchema),
}

function jsonSchemaOf(schema: z.ZodType): Record<string, unknown> {
  // The dialect is left out: OpenAI takes only the keywords that it lists.
  const { $schema: _, ...json } = z.toJSONSchema(schema)
  return json
}
