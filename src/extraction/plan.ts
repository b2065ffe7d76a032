/**
 * Cuts messages into batches along their conversations, oldest conversation first: a conversation is only cut if it is
 * larger than a batch by itself.
 * @param size messages in a batch at most, from 1
 */
export function planBatches<Message extends { id: string; conversationId: string; sentAt: Date }>(
  messages: readonly Message[],
  size: number,
): Message[][] {
  const byTime = [...messages].sort((a, b) => a.sentAt.getTime() - b.sentAt.getTime() || compare(a.id, b.id))
  const conversations = new Map<string, Message[]>()
  for (const message of byTime) {
    const others = conversations.get(message.conversationId)
    if (others) others.push(message)
    else conversations.set(message.conversationId, [message])
  }
  const batches: Message[][] = []
  for (const conversation of conversations.values()) {
    for (let from = 0; from < conversation.length; from += size) {
      const piece = conversation.slice(from, from + size)
      const last = batches.at(-1)
      if (last && last.length + piece.length <= size) last.push(...piece)
      else batches.push(piece)
    }
  }
  return batches
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
