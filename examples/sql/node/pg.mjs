// A nightly job: syncs a feed of one JSON document a line.
//
//   node pg.mjs MAPPING [FILE]        standard input without FILE; the database is DATABASE_URL, or PGHOST and the like
//
// Exit codes are those of the command `rowdelta sync`: 0 done, 1 documents failed, 2 could not run to the end,
// 3 deletions were withheld, 6 documents failed, and trying again can help some.
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import pg from 'pg'

// A call is a transaction: few enough documents that its locks are short, enough that its cost is shared.
const CHUNK = 500

// Lines are passed on as text: one that is as it was is not even read, and JSON.parse would round numbers that a double
// cannot hold.
const SYNC = 'SELECT rowdelta.sync_texts($1, $2::text[]) AS report'

async function* chunks(input) {
  let chunk = []
  let number = 0
  for await (const text of createInterface({ input, crlfDelay: Infinity })) {
    number += 1
    if (text.trim() === '') continue
    chunk.push({ number, text })
    if (chunk.length === CHUNK) {
      yield chunk
      chunk = []
    }
  }
  if (chunk.length > 0) yield chunk
}

/** Syncs some lines, and gives the report. */
async function sync(client, mapping, lines) {
  const { rows } = await client.query(SYNC, [mapping, lines.map((line) => line.text)])
  const { report } = rows[0]
  for (const failure of report.failures) failure.line = lines[failure.item - 1].number
  return report
}

async function run(mapping, file) {
  const total = { documents: { read: 0, new: 0, changed: 0, unchanged: 0, withheld: 0, failed: 0 }, rows_written: 0 }
  const failures = []
  const input = file ? (await open(file)).createReadStream() : process.stdin
  const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  try {
    for await (const lines of chunks(input)) {
      const report = await sync(client, mapping, lines)
      for (const what in total.documents) total.documents[what] += report.documents[what]
      for (const { added, updated, moved, removed } of report.relations) {
        total.rows_written += added + updated + moved + removed
      }
      failures.push(...report.failures)
    }
  } finally {
    await client.end()
  }
  console.log(JSON.stringify(total))
  for (const { line, document, relation, message } of failures) {
    console.error([`line ${line}`, document, relation, message].filter(Boolean).join(': '))
  }
  const { withheld } = total.documents
  if (withheld > 0) console.error(`${withheld} documents were withheld: too many rows would be deleted`)
  if (failures.length > 0) return failures.some((failure) => failure.retryable) ? 6 : 1
  return withheld > 0 ? 3 : 0
}

const [mapping, file] = process.argv.slice(2)
if (!mapping) {
  console.error('usage: node pg.mjs MAPPING [FILE]')
  process.exit(2)
}
try {
  process.exitCode = await run(mapping, file)
} catch (error) {
  console.error(error.message || error.code)
  process.exitCode = 2
}
