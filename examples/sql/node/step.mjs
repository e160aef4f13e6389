// A step of a workflow, over HTTP: POST /sync/MAPPING with a JSON array of documents.
//
//   PORT=8080 node step.mjs        without PORT one that is free; the address is printed
//
// 200: all documents are in; the body is the report.
// 500: some failed, by the names in the body; the others are in. The scheduler sends the same batch again: what is in
//      is skipped. `retryable` says whether that can help without anybody mending something first.
// 503: the database could not be asked, or its answer was lost. Sending the batch again does no harm.
// 400, 404, 413: the request is at fault, and nothing is in.
import { createServer } from 'node:http'
import pg from 'pg'

const BODY_MAX = 64 * 1024 * 1024
const RETRY_AFTER = 30 // seconds

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4, connectionTimeoutMillis: 5000 })
// An idle connection that breaks, as when the server restarts, must not end the process.
pool.on('error', (error) => console.error(error.message))

async function read(request) {
  const parts = []
  let size = 0
  for await (const part of request) {
    size += part.length
    if (size > BODY_MAX) return null
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

async function step(request) {
  const [, mapping] = /^\/sync\/([^/?]+)$/.exec(request.url) ?? []
  if (request.method !== 'POST' || !mapping) return [404, { message: 'POST /sync/MAPPING' }]
  try {
    const body = await read(request)
    if (body === null) return [413, { message: `more than ${BODY_MAX} bytes` }]
    // The body goes on as text: JSON.parse would round numbers that a double cannot hold.
    const { rows } = await pool.query('SELECT rowdelta.sync_many($1, $2::jsonb) AS report', [
      decodeURIComponent(mapping),
      body,
    ])
    const { report } = rows[0]
    if (report.status === 'done') return [200, report]
    const failed = report.failures
    return [500, {
      message: `${report.documents.failed} documents failed, ${report.documents.withheld} were withheld`,
      retryable: failed.some((failure) => failure.retryable),
      // Of a document that stands twice in the batch no relation is at fault.
      relations: [...new Set(failed.map((failure) => failure.relation).filter(Boolean))],
      failures: failed,
    }]
  } catch (error) {
    if (error instanceof URIError || error.code === 'RD001') return [404, { message: error.message }]
    // Class 22 and RD006: no JSON that PostgreSQL can read, or no array.
    if (/^22|^RD006/.test(error.code)) return [400, { message: error.message }]
    console.error(error.message || error.code)
    return [503, { message: 'the database could not be asked', retryable: true }]
  }
}

const server = createServer(async (request, response) => {
  const [status, body] = await step(request)
  const headers = { 'content-type': 'application/json' }
  if (body.retryable) headers['retry-after'] = RETRY_AFTER
  // What is left of a body that was refused is not read.
  if (status === 413) headers.connection = 'close'
  response.writeHead(status, headers).end(`${JSON.stringify(body)}\n`)
})

server.listen(process.env.PORT ?? 0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})

// Requests at work are answered before the end.
process.once('SIGTERM', () => server.close(() => pool.end()))
