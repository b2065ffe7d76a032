import { defineConfig } from 'prisma/config'

export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  // Only `prisma migrate` and `prisma studio` need it; Quarry itself reads DATABASE_URL in src/config.ts.
  datasource: { url: process.env.DATABASE_URL ?? '' },
})
