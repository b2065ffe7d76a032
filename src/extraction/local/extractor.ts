import type { Extractor } from '../extractor.ts'

/**
 * The extractor that needs no language model: rules over sentences, parts of speech and the structure of a dialogue. It
 * reads English, some Russian, and of other languages their structure only. It would rather miss something than propose
 * what is not there.
 */
export function createLocalExtractor(): Extractor {
  return {
    type: 'local',
    model: 'rules',
    async extract(batch, signal) {
      // Its tables of words take a fifth of a start to load, which most processes end without.
      const { extract } = await import('./extract.ts')
      return extract(batch, signal)
    },
    close: async () => {},
  }
}
