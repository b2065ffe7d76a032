import type { Message, MessageEntity, RichBlock, RichText } from 'grammy/types'
import type { JsonObject } from '../formats/json-stream.ts'
import { mediaText, plainText } from '../formats/telegram.ts'

/**
 * What a message of the Bot API says, in the words in which an import of the same message says it: its text or caption,
 * else what a person sees of it, such as `[photo]`.
 * @returns null for notices of the service and for media that say nothing (dice, stories)
 */
export function contentOf(message: Message): string | null {
  const text = message.text ?? message.caption
  if (text) return withLinks(text, message.entities ?? message.caption_entities ?? [])
  if (message.rich_message) return blocksText(message.rich_message.blocks) || null
  return mediaText(exportFields(message))
}

/**
 * Links behind words are written after them, as by an import. Entities may lie within each other, which does not matter
 * for links, since those never do. Offsets count UTF-16 units, as JavaScript does.
 */
function withLinks(text: string, entities: readonly MessageEntity[]): string {
  const parts: unknown[] = []
  let end = 0
  for (const entity of entities) {
    if (entity.type !== 'text_link' || entity.offset < end) continue
    const linked = text.slice(entity.offset, entity.offset + entity.length)
    parts.push(text.slice(end, entity.offset), link(linked, entity.url))
    end = entity.offset + entity.length
  }
  return plainText([...parts, text.slice(end)]) ?? text
}

/** The Bot API adds the slash after a bare host (`https://quarry.example/`), an export has the link as it was written. */
const link = (text: string, url: string) => ({
  type: 'text_link',
  text,
  href: url === `${text}/` ? text : url,
})

/** The message's medium under the names that an export gives it, so that both are told by the same rules. */
function exportFields(message: Message): JsonObject {
  const { poll, checklist, venue, contact, game, invoice, sticker, video, audio, document } = message
  if (poll) return { poll: { question: poll.question, answers: poll.options } }
  if (checklist) return { todo_list: { title: checklist.title, answers: checklist.tasks } }
  // A venue has a location, too, and an animation a document: the narrower kind comes first.
  if (venue) return { place_name: venue.title, address: venue.address }
  if (message.location) return { location_information: { ...message.location } }
  if (contact) return { contact_information: { ...contact } }
  if (game) return { game_title: game.title }
  if (invoice) return { invoice_information: { ...invoice } }
  if (message.giveaway ?? message.giveaway_winners) return { giveaway_information: {} }
  if (message.paid_media) return { paid_stars_amount: message.paid_media.star_count }
  if (sticker) return { media_type: 'sticker', sticker_emoji: sticker.emoji }
  if (message.voice) return { media_type: 'voice_message' }
  if (message.video_note) return { media_type: 'video_message' }
  if (message.animation) return { media_type: 'animation' }
  if (video) return { media_type: 'video_file', file_name: video.file_name }
  if (audio) return { ...audio, media_type: 'audio_file' }
  if (message.photo) return { photo: '' }
  return document ? { file: '', file_name: document.file_name } : {}
}

/** Rich messages, which bots send: one line for each paragraph, list item and row of a table. */
function blocksText(blocks: readonly RichBlock[]): string {
  return blocks.flatMap((block) => blockLines(block)).join('\n')
}

function blockLines(block: RichBlock): string[] {
  const lines: string[] = []
  const add = (text: RichText | undefined) => {
    const line = text === undefined ? '' : richText(text)
    if (line !== '') lines.push(line)
  }
  if ('summary' in block) add(block.summary)
  if ('text' in block) add(block.text)
  if ('expression' in block) add(block.expression)
  if ('blocks' in block) lines.push(...block.blocks.flatMap(blockLines))
  if ('items' in block) for (const item of block.items) add(`${item.label} ${blocksText(item.blocks)}`)
  if ('cells' in block)
    for (const row of block.cells) add(row.map(({ text }) => richText(text ?? '')).join(' | '))
  if ('caption' in block && block.caption) add(isCaption(block.caption) ? block.caption.text : block.caption)
  if ('credit' in block) add(block.credit)
  return lines
}

const isCaption = (caption: object | string): caption is { text: RichText } =>
  typeof caption === 'object' && !Array.isArray(caption) && !('type' in caption)

function richText(text: RichText): string {
  if (typeof text === 'string') return text
  if (Array.isArray(text)) return text.map(richText).join('')
  switch (text.type) {
    case 'custom_emoji':
      return text.alternative_text
    case 'mathematical_expression':
      return text.expression
    case 'url':
      return plainText([link(richText(text.text), text.url)]) ?? ''
    case 'anchor':
      return ''
    default:
      return 'text' in text ? richText(text.text) : ''
  }
}
