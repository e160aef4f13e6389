-- Sync from plain SQL: psql -f examples/sql/shop.sql, in a database with the core and without these tables.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null null
SET timezone = 'UTC';

\echo '-- Tables and mapping'
\ir tables.sql

-- Every row written from here on is kept for a quarter of a year, before and after.
SELECT rowdelta.keep_history('shop', '90 days') \g /dev/null

\echo '-- One document'
SELECT * FROM rowdelta.sync('shop', '{
  "number": "A1", "customer": {"name": "Ada"}, "placedAt": "2026-01-05T10:00:00+01:00",
  "lines": [{"sku": "tea", "qty": 2, "price": 3.5}, {"sku": "mug", "qty": 1, "price": 9}], "tags": ["gift"]}');

\echo '-- The first night: a feed of one document a line'
-- CSV with a quote and a delimiter that no JSON text contains, so that COPY takes each line as it is.
CREATE TEMP TABLE feed (document jsonb);
COPY feed FROM stdin WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');
{"number": "A1", "customer": {"name": "Ada"}, "placedAt": "2026-01-05T10:00:00+01:00", "lines": [{"sku": "tea", "qty": 2, "price": 3.5}, {"sku": "mug", "qty": 1, "price": 9}], "tags": ["gift"]}
{"number": "A2", "customer": {"name": "Bo"}, "placedAt": "2026-01-05T11:30:00Z", "lines": [{"sku": "tea", "qty": 1, "price": 3.5}], "tags": []}
{"number": "A3", "customer": {"name": "Cy"}, "placedAt": "2026-01-05T12:00:00Z", "lines": [{"sku": "pot", "qty": 1, "price": 30}], "tags": ["gift", "fragile"]}
\.
CREATE TEMP TABLE report AS
SELECT rowdelta.sync_many('shop', jsonb_agg(document)) AS report FROM feed;

-- Reports are printed by these two from now on.
PREPARE documents AS
SELECT report ->> 'status' AS status, d.* FROM report,
       jsonb_to_record(report -> 'documents') AS d (read int, new int, changed int, unchanged int, failed int);
PREPARE relations AS
SELECT r.* FROM report, jsonb_to_recordset(report -> 'relations')
       AS r (name text, added int, updated int, moved int, removed int, unchanged int);
EXECUTE documents;
EXECUTE relations;

\echo '-- The second night: the same orders, spelled otherwise'
-- Another order of the lists, another spelling of the numbers and of the time: the same rows.
UPDATE feed SET document = document || '{"tags": ["fragile", "gift"], "placedAt": "2026-01-05T13:00:00+01:00",
                                         "lines": [{"price": 30.00, "qty": 1.0, "sku": "pot"}]}'
WHERE document ->> 'number' = 'A3';
-- xmin is the transaction that wrote a row: it stays as it is.
CREATE TEMP VIEW writers AS
SELECT 'orders' AS relation, id, xmin::text AS writer FROM orders
UNION ALL SELECT 'order_lines', id, xmin::text FROM order_lines;
CREATE TEMP TABLE before AS TABLE writers;
UPDATE report SET report = rowdelta.sync_many('shop', (SELECT jsonb_agg(document) FROM feed));
EXECUTE documents;
SELECT count(*) AS rows_rewritten FROM (TABLE writers EXCEPT TABLE before) AS rewritten;

\echo '-- What would a changed order write? A plan writes nothing'
\set order '{"number": "A1", "customer": {"name": "Ada"}, "placedAt": "2026-01-05T10:00:00+01:00", "lines": [{"sku": "tea", "qty": 3, "price": 3.5}, {"sku": "pot", "qty": 1, "price": 30}], "tags": []}'
SELECT * FROM rowdelta.plan('shop', :'order');

\echo '-- In a transaction of your own, with what belongs to it'
BEGIN;
UPDATE orders SET note = 'called back' WHERE number = 'A1';
SELECT relation, added, updated, removed, unchanged, status FROM rowdelta.sync('shop', :'order');
COMMIT;
SELECT number, customer_name, note, sku, quantity, price FROM orders o JOIN order_lines l ON l.order_id = o.id
WHERE number = 'A1' ORDER BY l.id;

\echo '-- Documents that fail are named; the others are in'
UPDATE report SET report = rowdelta.sync_many('shop', '[
  {"number": "A2", "lines": [{"sku": "tea", "qty": 0, "price": 3.5}]},
  {"number": "A3", "lines": [{"sku": "pot", "qty": "two"}]},
  {"number": "A4", "customer": {"name": "Di"}, "placedAt": "2026-01-06T09:00:00Z", "lines": [], "tags": []},
  {"customer": {"name": "nobody"}}]');
EXECUTE documents;
\x on
SELECT document, item, relation, sqlstate, message, retryable FROM rowdelta.failures ORDER BY item;
\x off

\echo '-- A single document that fails is an error, and its transaction''s affair'
\set ON_ERROR_STOP off
SELECT * FROM rowdelta.sync('shop', '{"number": "A2", "lines": [{"sku": "tea", "qty": 0}]}');
\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on

\echo '-- Verify: do the rows agree with what was recorded of them?'
SELECT * FROM rowdelta.verify('shop');
-- Somebody edits rows by hand.
UPDATE order_lines SET price = 1 WHERE sku = 'tea' AND order_id = (SELECT id FROM orders WHERE number = 'A2');
DELETE FROM orders WHERE number = 'A4';
SELECT * FROM rowdelta.verify('shop');

\echo '-- Mend: have every document compared, then sync it again'
SELECT rowdelta.unsettle_all(id) AS unsettled FROM rowdelta.mapping WHERE name = 'shop';
UPDATE report SET report = rowdelta.sync_many('shop', (SELECT jsonb_agg(document) FROM feed WHERE document ->> 'number' = 'A2'));
EXECUTE relations;

\echo '-- History: what was written, and what stood there before'
SELECT document, relation, action, key, before, after FROM rowdelta.change
WHERE document = 'A1' AND action <> 'added' ORDER BY id;

\echo '-- Status'
SELECT mapping, run, status, documents -> 'failed' AS failed FROM rowdelta.status;
