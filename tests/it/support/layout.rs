//! What must hold of the layout of what is recorded, at any time.

/// Rows that the layout forbids: the invariants of `docs/state.md`.
pub const BROKEN: &str = "
SELECT 'ranges overlap', encode(s.lowest, 'hex') FROM (
    SELECT lowest, highest, lead(lowest) OVER (PARTITION BY mapping ORDER BY lowest) AS next FROM rowdelta.skip) AS s
WHERE s.lowest > s.highest OR s.highest >= s.next
UNION ALL
SELECT 'a range is not what the base has', encode(s.lowest, 'hex') FROM rowdelta.skip s
CROSS JOIN LATERAL (
    SELECT array_agg(e.key ORDER BY e.key) AS keys, count(*) FILTER (WHERE NOT e.settled) AS unsettled,
           array_agg(e.key ORDER BY e.key) FILTER (WHERE e.settled AND e.raw IS NOT NULL) AS skipped,
           string_agg(e.raw, '' ORDER BY e.key) FILTER (WHERE e.settled AND e.raw IS NOT NULL) AS raws
    FROM rowdelta.base b CROSS JOIN LATERAL unnest(b.keys, b.raw, b.settled) AS e (key, raw, settled)
    WHERE b.mapping = s.mapping AND e.key BETWEEN s.lowest AND s.highest) AS b
WHERE (s.lowest, s.highest, s.documents, s.unsettled, s.keys, s.raws) IS DISTINCT FROM
      (b.keys[1], b.keys[cardinality(b.keys)], cardinality(b.keys), b.unsettled, coalesce(b.skipped, '{}'),
       coalesce(b.raws, ''))
UNION ALL
SELECT 'a row of the base lies within no range', encode(b.lowest, 'hex') FROM rowdelta.base b
WHERE NOT EXISTS (SELECT FROM rowdelta.skip s WHERE s.mapping = b.mapping AND b.lowest >= s.lowest
                  AND b.keys[cardinality(b.keys)] <= s.highest)
   OR b.lowest <> b.keys[1]
   OR b.keys <> ARRAY(SELECT k FROM unnest(b.keys) AS k ORDER BY k)
   OR cardinality(b.keys) <> ALL (ARRAY[cardinality(b.raw), cardinality(b.fingerprint), cardinality(b.relations),
          cardinality(b.settled), cardinality(b.absent), cardinality(b.coverage), cardinality(b.respelled)])
UNION ALL
SELECT 'a gone document is not in the base', encode(d.key, 'hex') FROM rowdelta.document d
WHERE d.gone AND NOT EXISTS (SELECT FROM rowdelta.base b WHERE b.mapping = d.mapping AND d.key = ANY (b.keys))";
