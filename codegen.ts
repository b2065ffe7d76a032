import type { CodegenConfig } from '@graphql-codegen/cli'

/** Types the GraphQL documents of the tests, so that a test that no longer fits the schema does not compile. */
export default {
  schema: 'schema.graphql',
  documents: ['test/**/*.ts', '!test/support/generated/**'],
  ignoreNoDocuments: true,
  generates: {
    'test/support/generated/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        useTypeImports: true,
        enumsAsTypes: true,
        documentMode: 'string',
        defaultScalarType: 'unknown',
        scalars: { DateTime: 'string', JSON: 'any', File: 'File', ID: 'string' },
        importExtension: '.ts',
        emitLegacyCommonJSImports: false,
      },
    },
  },
} satisfies CodegenConfig
