import { builder } from './builder.ts'
import './atom.ts'
import './embedding.ts'
import './errors.ts'
import './import.ts'
import './job.ts'
import './message.ts'
import './provider.ts'
import './search.ts'
import './source.ts'
import './topic.ts'

export const schema = builder.toSchema()
