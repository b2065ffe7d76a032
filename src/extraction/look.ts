/** Colours that can be told apart on light and on dark (those of Tailwind CSS, shade 500), and icons of the Lucide set. */
const colors = [
  '#ef4444',
  '#f97316',
  '#f59e0b',
  '#84cc16',
  '#22c55e',
  '#14b8a6',
  '#06b6d4',
  '#3b82f6',
  '#6366f1',
  '#8b5cf6',
  '#d946ef',
  '#ec4899',
]
const icons = [
  'message-circle',
  'lightbulb',
  'puzzle',
  'compass',
  'layers',
  'box',
  'flag',
  'hash',
  'bookmark',
  'map',
  'target',
  'tag',
]

/** How a new topic looks: always the same for a name, mostly another for another one. */
export function lookOf(key: string): { color: string; icon: string } {
  let hash = 0
  for (const character of key) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0
  const pick = (list: readonly string[], number: number) => list[number % list.length] ?? ''
  return { color: pick(colors, hash), icon: pick(icons, Math.floor(hash / colors.length)) }
}
