const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** A size as people read it: `512 B`, `1.5 MiB`, `34 GiB`. @param bytes 0 or more */
export function bytesText(bytes: number): string {
  const power = Math.min(units.length - 1, bytes > 0 ? Math.floor(Math.log2(bytes) / 10) : 0)
  const value = bytes / 1024 ** power
  return `${value >= 10 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}
