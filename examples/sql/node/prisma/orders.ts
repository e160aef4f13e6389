// Syncs orders from an application that has its tables in Prisma: npx prisma generate, then npx tsx orders.ts
import { PrismaPg } from '@prisma/adapter-pg'
import { PrismaClient } from './generated/client.ts'

type Failure = { document: string | null; relation: string | null; message: string; retryable: boolean }
type Report = {
  status: 'done' | 'failed' | 'withheld'
  documents: { new: number; changed: number; unchanged: number; failed: number }
  failures: Failure[]
}

const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) })

// Text of a feed can be passed on as it is, and should be, where numbers are longer than a double holds.
async function sync(client: Pick<PrismaClient, '$queryRaw'>, orders: object[]): Promise<Report> {
  const [{ report }] = await client.$queryRaw<[{ report: Report }]>`
    SELECT rowdelta.sync_many('shop', ${JSON.stringify(orders)}::jsonb) AS report`
  return report
}

const order = {
  number: 'P1',
  customer: { name: 'Ada' },
  placedAt: '2026-01-05T10:00:00+01:00',
  lines: [{ sku: 'tea', qty: 2, price: 3.5 }, { sku: 'mug', qty: 1, price: 9 }],
  tags: ['gift'],
}

try {
  console.log('first: new', (await sync(prisma, [order])).documents.new)
  await prisma.order.update({ where: { number: 'P1' }, data: { note: 'called back' } })
  console.log('again: unchanged', (await sync(prisma, [order])).documents.unchanged)

  // With writes of the application's own in one transaction. Its isolation must be READ COMMITTED, PostgreSQL's default.
  const more = { ...order, lines: [{ sku: 'tea', qty: 3, price: 3.5 }] }
  await prisma.$transaction(async (tx) => {
    const report = await sync(tx, [more])
    // sync_many reports what fails and goes on. All or nothing is what an error asks for.
    if (report.status !== 'done') throw new Error(JSON.stringify(report.failures))
    await tx.order.update({ where: { number: 'P1' }, data: { note: 'one mug less' } })
  })
  const stored = await prisma.order.findUniqueOrThrow({
    where: { number: 'P1' },
    include: { lines: true },
  })
  for (const line of stored.lines) console.log(`stored: ${line.quantity} ${line.sku} at ${line.price}, ${stored.note}`)

  const { status, failures } = await sync(prisma, [{ ...order, lines: [{ sku: 'tea', qty: 0 }] }])
  for (const { document, relation, message } of failures) console.log(`${status}: ${document}: ${relation}: ${message}`)
} finally {
  await prisma.$disconnect()
}
