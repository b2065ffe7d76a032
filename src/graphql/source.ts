import { builder } from './builder.ts'
import { MessageConnection } from './message.ts'

export const SourceNode = builder.prismaNode('Source', {
  description: 'Where messages come from: a Telegram chat, a Slack workspace, an IRC log, an API client.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What people call it; unique together with the type.' }),
    type: t.exposeString('type', {
      description: 'What kind of place it is, such as `telegram`, `slack`, `irc` or a name of your own.',
    }),
    messages: t.relatedConnection(
      'messages',
      {
        cursor: 'id',
        description: 'Its messages, oldest first.',
        query: { orderBy: [{ sentAt: 'asc' }, { id: 'asc' }] },
      },
      MessageConnection,
    ),
  }),
})

builder.prismaObjectField('Message', 'source', (t) =>
  t.relation('source', { type: SourceNode, description: 'Where it comes from.' }),
)
