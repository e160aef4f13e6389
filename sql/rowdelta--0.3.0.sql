-- rowdelta 0.3.0: the state of synced documents, the ledger of runs, and sync in SQL.
--
-- One file for three ways in: CREATE EXTENSION rowdelta, psql -f (add -1 for one
-- transaction), and `rowdelta install`, which sends this very text. No superuser
-- is needed; the role needs CREATE on the database.
--
-- Error codes of our own: RD001 unknown mapping, RD002 the lease is not ours,
-- RD003 a document's state changed meanwhile, RD004 the transaction is not READ COMMITTED,
-- RD005 a mapping is not for the SQL functions, RD006 a document does not fit its mapping,
-- RD008 more would be deleted than may be, RD009 taken back (never leaves the functions).
--
-- What is recorded of documents stands in three tables; why that is right and what it
-- costs is in docs/state.md.

-- Who owns a schema can put into it what functions would call: no objects into the schema of somebody else.
DO $$
DECLARE
    v_owner text;
BEGIN
    SELECT pg_catalog.quote_ident(o.rolname) INTO v_owner FROM pg_catalog.pg_namespace n
    JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) n.nspowner
    JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) CURRENT_USER
    WHERE n.nspname OPERATOR(pg_catalog.=) 'rowdelta'
      AND NOT (pg_catalog.pg_has_role(o.oid, 'USAGE') AND o.rolsuper OPERATOR(pg_catalog.>=) r.rolsuper);
    IF FOUND THEN
        RAISE EXCEPTION 'schema rowdelta belongs to role %: install as that role, or ALTER SCHEMA rowdelta OWNER TO %, if what is in it is to be trusted',
            v_owner, pg_catalog.quote_ident(CURRENT_USER) USING ERRCODE = '42501';
    END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS rowdelta;

COMMENT ON SCHEMA rowdelta IS 'rowdelta: what is known of synced documents, and the ledger of runs';

CREATE FUNCTION rowdelta.version() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$ SELECT '0.3.0' $$;

COMMENT ON FUNCTION rowdelta.version() IS 'the version of the installed schema';

-- One row a mapping. The lease says which run may write under it, and until when.
CREATE TABLE rowdelta.mapping (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    definition   jsonb NOT NULL,
    digest       bytea NOT NULL,
    filled       text[] NOT NULL DEFAULT '{}',
    lease_token  uuid,
    lease_until  timestamptz,
    lease_holder text,
    history      interval
);

COMMENT ON COLUMN rowdelta.mapping.digest IS 'of the mapping and the types of its columns';
COMMENT ON COLUMN rowdelta.mapping.history IS 'how long rowdelta.change keeps rows; NULL: for good, and the SQL functions note none';
COMMENT ON COLUMN rowdelta.mapping.filled IS
    'relations whose tables held rows at the end of the last run: an empty one was truncated or lost since';

-- What was recorded of documents since the last merge: a row a document. All that sessions
-- do side by side they do here. An update changes no indexed column and finds room on its
-- page, so that it stays a HOT update.
CREATE TABLE rowdelta.document (
    mapping     integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    key         bytea NOT NULL,
    raw         bytea,
    fingerprint bytea,
    relations   bytea NOT NULL,
    settled     boolean NOT NULL,
    absent      boolean NOT NULL DEFAULT false,
    coverage    bytea,
    respelled   boolean NOT NULL DEFAULT false,
    gone        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (mapping, key)
) WITH (fillfactor = 80);

COMMENT ON TABLE rowdelta.document IS 'what was recorded of documents since the last merge; of others see rowdelta.base';
COMMENT ON COLUMN rowdelta.document.key IS 'cells of the root''s key: int32 length and binary value each; NULL: the length -1';
COMMENT ON COLUMN rowdelta.document.raw IS 'of the document''s bytes; NULL: not known';
COMMENT ON COLUMN rowdelta.document.fingerprint IS 'of all its rows; NULL: rows were taken from it since';
COMMENT ON COLUMN rowdelta.document.relations IS
    'fingerprints of its relations: int16 number of them, a bit for each that is not that of no rows, and those of 16 bytes';
COMMENT ON COLUMN rowdelta.document.settled IS 'false: to be done again by the next run';
COMMENT ON COLUMN rowdelta.document.absent IS 'its root row is marked: it was missing from a complete feed';
COMMENT ON COLUMN rowdelta.document.coverage IS 'what its fingerprints cover, for who makes them anew from its rows';
COMMENT ON COLUMN rowdelta.document.respelled IS 'its bytes changed, and not its rows, since these were recorded';
COMMENT ON COLUMN rowdelta.document.gone IS 'nothing is recorded of it, though rowdelta.base has it';

-- What is recorded of all other documents, sorted by key, as many a row as fill a page.
CREATE TABLE rowdelta.base (
    mapping     integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    lowest      bytea NOT NULL,
    keys        bytea[] NOT NULL,
    raw         bytea[] NOT NULL,
    fingerprint bytea[] NOT NULL,
    relations   bytea[] NOT NULL,
    settled     boolean[] NOT NULL,
    absent      boolean[] NOT NULL,
    coverage    bytea[] NOT NULL,
    respelled   boolean[] NOT NULL,
    PRIMARY KEY (mapping, lowest)
) WITH (toast_tuple_target = 8160);

COMMENT ON TABLE rowdelta.base IS 'what is recorded of documents, but for those in rowdelta.document; written by merges';
COMMENT ON COLUMN rowdelta.base.lowest IS 'the first of the keys';
COMMENT ON COLUMN rowdelta.base.keys IS 'in order; the other arrays are as the columns of rowdelta.document';

-- What a run reads at its start of the documents in the base: a row for each range of
-- consecutive rows of it.
CREATE TABLE rowdelta.skip (
    mapping   integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    lowest    bytea NOT NULL,
    highest   bytea NOT NULL,
    documents integer NOT NULL,
    unsettled integer NOT NULL,
    keys      bytea[] NOT NULL,
    raws      bytea NOT NULL,
    PRIMARY KEY (mapping, lowest)
) WITH (toast_tuple_target = 8160);

COMMENT ON TABLE rowdelta.skip IS 'keys and raw fingerprints of the settled documents of rowdelta.base';
COMMENT ON COLUMN rowdelta.skip.lowest IS 'the first key of the range';
COMMENT ON COLUMN rowdelta.skip.highest IS 'the last key of the range';
COMMENT ON COLUMN rowdelta.skip.documents IS 'that the base has in the range';
COMMENT ON COLUMN rowdelta.skip.unsettled IS 'those among them that are not settled';
COMMENT ON COLUMN rowdelta.skip.keys IS 'of the settled ones, in order';
COMMENT ON COLUMN rowdelta.skip.raws IS 'of the same documents, 16 bytes each';

-- Their rows fill pages by themselves, and hashes do not compress.
ALTER TABLE rowdelta.base
    ALTER keys SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL, ALTER fingerprint SET STORAGE EXTERNAL,
    ALTER relations SET STORAGE EXTERNAL;
ALTER TABLE rowdelta.skip ALTER keys SET STORAGE EXTERNAL, ALTER raws SET STORAGE EXTERNAL;

CREATE VIEW rowdelta.state AS
    SELECT d.mapping, d.key, d.raw, d.fingerprint, d.relations, d.settled, d.absent, d.coverage, d.respelled
    FROM rowdelta.document d WHERE NOT d.gone
    UNION ALL
    SELECT b.mapping, e.key, e.raw, e.fingerprint, e.relations, e.settled, e.absent, e.coverage, e.respelled
    FROM rowdelta.base b
    CROSS JOIN LATERAL ROWS FROM (
        pg_catalog.unnest(b.keys), pg_catalog.unnest(b.raw), pg_catalog.unnest(b.fingerprint), pg_catalog.unnest(b.relations),
        pg_catalog.unnest(b.settled), pg_catalog.unnest(b.absent), pg_catalog.unnest(b.coverage), pg_catalog.unnest(b.respelled)
    ) AS e (key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    WHERE NOT EXISTS (SELECT FROM rowdelta.document d
                      WHERE d.mapping OPERATOR(pg_catalog.=) b.mapping AND d.key OPERATOR(pg_catalog.=) e.key);

COMMENT ON VIEW rowdelta.state IS 'what is recorded of documents, a row each, for people: it unpacks all of it';

-- Rows that triggers stored otherwise than they were sent: of such a row both forms are known. Nothing is here of
-- tables without such triggers, nor of rows that these left as they were. It is no part of rowdelta.document, since
-- relations of one document may be stored at once.
CREATE TABLE rowdelta.rewritten (
    mapping  integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    key      bytea NOT NULL,
    relation text NOT NULL,
    forms    bytea NOT NULL,
    PRIMARY KEY (mapping, key, relation)
);

COMMENT ON TABLE rowdelta.rewritten IS 'rows that triggers stored otherwise than they were sent';
COMMENT ON COLUMN rowdelta.rewritten.key IS 'of the document, as in rowdelta.document';
COMMENT ON COLUMN rowdelta.rewritten.forms IS
    'of each such row hashes of it, and of its cells, as they are stored and as they were sent';

CREATE TABLE rowdelta.run (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping  integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    started  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished timestamptz,
    status   text NOT NULL DEFAULT 'running',
    report   jsonb
);

COMMENT ON COLUMN rowdelta.run.status IS 'running, done, failed, withheld or aborted';

CREATE TABLE rowdelta.failure (
    run       bigint NOT NULL REFERENCES rowdelta.run ON DELETE CASCADE,
    document  text,
    file      text,
    line      bigint,
    item      bigint,
    relation  text,
    path      text,
    sqlstate  text,
    message   text NOT NULL,
    retryable boolean NOT NULL
);

CREATE INDEX failure_run ON rowdelta.failure (run);

-- Rows that were written: by the SQL functions where rowdelta.keep_history asks for it, by the command with --history.
CREATE TABLE rowdelta.change (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping  integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    document text,
    relation text NOT NULL,
    action   text NOT NULL,
    key      jsonb,
    before   jsonb,
    after    jsonb
);

CREATE INDEX change_at ON rowdelta.change (mapping, at);
CREATE INDEX change_document ON rowdelta.change (mapping, document);

COMMENT ON TABLE rowdelta.change IS 'rows that were written, before and after';
COMMENT ON COLUMN rowdelta.change.document IS 'its key in words: the values, joined by commas';
COMMENT ON COLUMN rowdelta.change.action IS 'added, updated, moved or removed';
COMMENT ON COLUMN rowdelta.change.before IS 'values as text; of an update the columns that differ';

-- What sync_texts knows a document by, without reading it: the hash of its text as it was given last. It counts as long as
-- it is the document's raw fingerprint, too; one that is not is without effect.
CREATE TABLE rowdelta.spelling (
    mapping integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    hash    bytea NOT NULL,
    key     bytea NOT NULL,
    cells   text[] NOT NULL,
    PRIMARY KEY (mapping, hash)
);

COMMENT ON TABLE rowdelta.spelling IS 'by which text documents were given to sync_texts';
COMMENT ON COLUMN rowdelta.spelling.key IS 'of the document, as in rowdelta.document';
COMMENT ON COLUMN rowdelta.spelling.cells IS 'the values of the columns of its key, as text, at their places among the columns of the root';

-- Limits on what one run may delete, set by whoever owns the database. A caller's own limits, and what it allows
-- explicitly, can only be stricter. To set one:
--   INSERT INTO rowdelta.guard (mapping, rows_max, percent_max) VALUES ('convocatorias', 5000, 5);
CREATE TABLE rowdelta.guard (
    mapping     text,
    rows_max    bigint CHECK (rows_max OPERATOR(pg_catalog.>=) 0),
    percent_max numeric CHECK (percent_max OPERATOR(pg_catalog.>=) 0 AND percent_max OPERATOR(pg_catalog.<=) 100)
);

CREATE UNIQUE INDEX guard_mapping ON rowdelta.guard (coalesce(mapping, ''));

COMMENT ON TABLE rowdelta.guard IS 'limits on what one run may delete, stricter than any caller''s';
COMMENT ON COLUMN rowdelta.guard.mapping IS 'the name of a mapping; NULL: of all';
COMMENT ON COLUMN rowdelta.guard.rows_max IS 'rows that a run may delete from all tables, cascades included; NULL: not limited here';
COMMENT ON COLUMN rowdelta.guard.percent_max IS 'share of a table''s rows that a run may delete, in percent; NULL: not limited here';

-- Under CREATE EXTENSION the rows belong in a dump, and where the ids have got to; elsewhere all is dumped anyway.
DO $$
DECLARE
    v_name text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_depend
               WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                 AND deptype OPERATOR(pg_catalog.=) 'e'
                 AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND objid OPERATOR(pg_catalog.=) 'rowdelta.mapping'::pg_catalog.regclass) THEN
        FOREACH v_name IN ARRAY ARRAY['mapping', 'mapping_id_seq', 'document', 'base', 'skip', 'rewritten', 'run', 'run_id_seq', 'failure',
                                      'guard', 'change', 'change_id_seq', 'spelling'] LOOP
            PERFORM pg_catalog.pg_extension_config_dump(pg_catalog.format('rowdelta.%I', v_name)::pg_catalog.regclass, '');
        END LOOP;
    END IF;
END
$$;

-- rowdelta.register(p_name, p_definition, p_digest)
--
-- The id of the mapping, entered or renewed. A mapping that did not change is not written.
CREATE FUNCTION rowdelta.register(p_name text, p_definition jsonb, p_digest bytea) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_id integer;
BEGIN
    SELECT id INTO v_id FROM rowdelta.mapping WHERE name = p_name;
    IF NOT FOUND THEN
        INSERT INTO rowdelta.mapping AS m (name, definition, digest) VALUES (p_name, p_definition, p_digest)
        ON CONFLICT (name) DO UPDATE SET name = excluded.name
        RETURNING id INTO v_id;
    END IF;
    UPDATE rowdelta.mapping SET definition = p_definition, digest = p_digest
    WHERE id = v_id AND (digest, definition) IS DISTINCT FROM (p_digest, p_definition);
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION rowdelta.register(text, jsonb, bytea) IS 'enters or renews a mapping; gives its id';

-- rowdelta.acquire(p_mapping, p_holder, p_seconds)
--
-- The token of a new lease, or NULL while someone else holds a live one. Taking over an
-- expired lease waits for transactions that still write under it, and leaves them the key-share
-- lock on the mapping that their new documents' foreign key takes.
--
-- Locks:   the mapping's row, not its key; the mapping's advisory lock, exclusively, to the end of the transaction.
-- Raises:  RD001 unknown mapping.
CREATE FUNCTION rowdelta.acquire(p_mapping integer, p_holder text, p_seconds integer) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_until timestamptz;
    v_token uuid := gen_random_uuid();
BEGIN
    SELECT lease_until INTO v_until FROM rowdelta.mapping WHERE id = p_mapping FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown mapping %', p_mapping USING ERRCODE = 'RD001';
    END IF;
    IF v_until > clock_timestamp() THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('rowdelta'), p_mapping);
    UPDATE rowdelta.mapping
    SET lease_token = v_token, lease_holder = p_holder,
        lease_until = clock_timestamp() + make_interval(secs => p_seconds)
    WHERE id = p_mapping;
    RETURN v_token;
END
$$;

COMMENT ON FUNCTION rowdelta.acquire(integer, text, integer) IS 'takes the lease of a mapping; NULL: someone else has it';

-- rowdelta.renew(p_mapping, p_token, p_seconds): the heartbeat. False: the lease was lost.
CREATE FUNCTION rowdelta.renew(p_mapping integer, p_token uuid, p_seconds integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    UPDATE rowdelta.mapping SET lease_until = clock_timestamp() + make_interval(secs => p_seconds)
    WHERE id = p_mapping AND lease_token = p_token;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION rowdelta.renew(integer, uuid, integer) IS 'prolongs a lease; false: it was lost';

-- rowdelta.release(p_mapping, p_token): gives the lease back.
CREATE FUNCTION rowdelta.release(p_mapping integer, p_token uuid) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    UPDATE rowdelta.mapping SET lease_token = NULL, lease_until = NULL, lease_holder = NULL
    WHERE id = p_mapping AND lease_token = p_token
$$;

COMMENT ON FUNCTION rowdelta.release(integer, uuid) IS 'gives a lease back';

-- rowdelta.enter(p_mapping, p_token)
--
-- Every transaction that writes under a lease begins with it: a holder that was paused
-- beyond its lease cannot write after a takeover.
--
-- Locks:   the mapping's advisory lock, shared, to the end of the transaction.
-- Raises:  RD002 the lease is not ours any more.
CREATE FUNCTION rowdelta.enter(p_mapping integer, p_token uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('rowdelta'), p_mapping);
    IF NOT EXISTS (SELECT FROM rowdelta.mapping WHERE id = p_mapping AND lease_token = p_token) THEN
        RAISE EXCEPTION 'another run of % took over: this one was still for longer than its lease (--lease); what was committed is in, the other run does the rest',
            coalesce((SELECT name FROM rowdelta.mapping WHERE id = p_mapping), 'mapping ' || p_mapping) USING ERRCODE = 'RD002';
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.enter(integer, uuid) IS 'checks the lease for the rest of the transaction';

-- rowdelta.hold_base(p_mapping)
--
-- Keeps merges out for the rest of the transaction: what a later statement reads of the base stays
-- true until the end. Merges change it under the same lock. That a later statement sees the
-- merges before it takes READ COMMITTED.
--
-- Locks:   the mapping's base lock, shared, to the end of the transaction.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.hold_base(p_mapping integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'this transaction is %, and rowdelta writes in READ COMMITTED only: BEGIN ISOLATION LEVEL READ COMMITTED',
            current_setting('transaction_isolation') USING ERRCODE = 'RD004';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('rowdelta.base'), p_mapping);
END
$$;

COMMENT ON FUNCTION rowdelta.hold_base(integer) IS 'keeps merges out for the rest of the transaction';

-- rowdelta.base_of(p_mapping, p_keys)
--
-- What the base has of the given documents, whatever was recorded of them since.
CREATE FUNCTION rowdelta.base_of(p_mapping integer, p_keys bytea[]) RETURNS SETOF rowdelta.document
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    -- A plan that was made while the table was small would read all of it once it no longer is.
    SET enable_seqscan = off
AS $$
    SELECT p_mapping, k.key, b.raw[i.at], b.fingerprint[i.at], b.relations[i.at], b.settled[i.at], b.absent[i.at],
           b.coverage[i.at], b.respelled[i.at], false
    FROM unnest(p_keys) AS k (key)
    CROSS JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= k.key
                        ORDER BY b.lowest DESC LIMIT 1) AS b
    CROSS JOIN LATERAL array_position(b.keys, k.key) AS i (at)
    WHERE i.at IS NOT NULL
$$;

COMMENT ON FUNCTION rowdelta.base_of(integer, bytea[]) IS 'what the base has of documents, whatever was recorded since';

-- rowdelta.bring(p_mapping, p_keys)
--
-- Copies what the base has of documents to where it can be changed: afterwards each of them of which
-- anything is recorded has a recent row. One that somebody else is bringing or recording is waited for.
--
-- Locks:   the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.bring(p_mapping integer, p_keys bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    INSERT INTO rowdelta.document SELECT * FROM rowdelta.base_of(p_mapping, p_keys) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION rowdelta.bring(integer, bytea[]) IS 'gives documents of the base recent rows';

-- rowdelta.settled(p_mapping): raw fingerprint and key of every document that need not be looked at again.
CREATE FUNCTION rowdelta.settled(p_mapping integer) RETURNS TABLE (raw bytea, key bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.raw, d.key FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.settled AND d.raw IS NOT NULL AND NOT d.gone
    UNION ALL
    SELECT substring(s.raws FROM (16 * k.at - 15)::integer FOR 16), k.key
    FROM rowdelta.skip s CROSS JOIN LATERAL unnest(s.keys) WITH ORDINALITY AS k (key, at)
    WHERE s.mapping = p_mapping
      -- Hashed, whatever the server knows of the table; in functions like this one NOT EXISTS may be a loop in a loop.
      AND k.key NOT IN (SELECT d.key FROM rowdelta.document d WHERE d.mapping = p_mapping)
$$;

COMMENT ON FUNCTION rowdelta.settled(integer) IS 'raw fingerprints of the documents that are done';

-- rowdelta.states(p_mapping, p_keys)
--
-- What is recorded of the given documents. One that was never synced yields no row.
CREATE FUNCTION rowdelta.states(p_mapping integer, p_keys bytea[])
    RETURNS TABLE (key bytea, raw bytea, fingerprint bytea, relations bytea, settled boolean, absent boolean,
                   respelled boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
    SELECT d.key, d.raw, d.fingerprint, d.relations, d.settled, d.absent, d.respelled FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone
    UNION ALL
    SELECT b.key, b.raw, b.fingerprint, b.relations, b.settled, b.absent, b.respelled
    FROM rowdelta.base_of(p_mapping, p_keys) b
    LEFT JOIN LATERAL (SELECT true AS is_there FROM rowdelta.document d
                       WHERE d.mapping = p_mapping AND d.key = b.key LIMIT 1) AS recent ON true
    WHERE recent.is_there IS NULL
$$;

COMMENT ON FUNCTION rowdelta.states(integer, bytea[]) IS 'what is recorded of documents, by key';

-- rowdelta.span(p_mapping, p_from, p_to)
--
-- What is recorded of all documents from a key on and before another (NULL: to the end). No range may go
-- beyond either.
CREATE FUNCTION rowdelta.span(p_mapping integer, p_from bytea, p_to bytea) RETURNS SETOF rowdelta.document
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    -- Whether there is an end says how to find it.
    SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY SELECT d.* FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= p_from AND (p_to IS NULL OR d.key < p_to) AND NOT d.gone;
    RETURN QUERY SELECT b.mapping, e.*, false
    FROM rowdelta.base b
    CROSS JOIN LATERAL unnest(b.keys, b.raw, b.fingerprint, b.relations, b.settled, b.absent, b.coverage, b.respelled)
        AS e (key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    WHERE b.mapping = p_mapping AND b.lowest >= p_from AND (p_to IS NULL OR b.lowest < p_to)
      AND e.key NOT IN (SELECT d.key FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key >= p_from AND (p_to IS NULL OR d.key < p_to));
END
$$;

COMMENT ON FUNCTION rowdelta.span(integer, bytea, bytea) IS 'what is recorded of all documents of some ranges';

-- rowdelta.recorded(p_mapping, p_after, p_limit)
--
-- What is recorded of all documents, in the order of their keys: so many of those after a key (NULL: from the first on).
CREATE FUNCTION rowdelta.recorded(p_mapping integer, p_after bytea, p_limit integer)
    RETURNS TABLE (key bytea, fingerprint bytea, relations bytea, settled boolean, coverage bytea)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    v_after bytea := coalesce(p_after, '');
    v_from  bytea;
    v_to    bytea;
    v_left  integer := p_limit;
    v_found integer;
BEGIN
    -- Range by range: the keys of one, and those after it that no range holds.
    SELECT s.lowest INTO v_from FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest <= v_after
    ORDER BY s.lowest DESC LIMIT 1;
    v_from := coalesce(v_from, '');
    LOOP
        SELECT s.lowest INTO v_to FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest > v_from
        ORDER BY s.lowest LIMIT 1;
        RETURN QUERY
        SELECT e.key, e.fingerprint, e.relations, e.settled, e.coverage
        FROM ((SELECT d.key, d.fingerprint, d.relations, d.settled, d.coverage FROM rowdelta.document d
               WHERE d.mapping = p_mapping AND d.key > v_after AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to)
                 AND NOT d.gone
               ORDER BY d.key LIMIT v_left)
              UNION ALL
              SELECT e.key, e.fingerprint, e.relations, e.settled, e.coverage
              FROM rowdelta.base b
              CROSS JOIN LATERAL unnest(b.keys, b.fingerprint, b.relations, b.settled, b.coverage)
                  AS e (key, fingerprint, relations, settled, coverage)
              WHERE b.mapping = p_mapping AND b.lowest >= v_from AND (v_to IS NULL OR b.lowest < v_to)
                AND e.key > v_after
                AND e.key NOT IN (SELECT d.key FROM rowdelta.document d
                                  WHERE d.mapping = p_mapping AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to))) AS e
        ORDER BY e.key LIMIT v_left;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        v_left := v_left - v_found;
        EXIT WHEN v_left <= 0 OR v_to IS NULL;
        v_from := v_to;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.recorded(integer, bytea, integer) IS 'what is recorded of all documents, some at a time';

-- rowdelta.record(p_mapping, p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
--
-- Records documents, last in the transaction that wrote their rows: compare-and-set on the
-- fingerprint that was read before (p_new: there was none recorded). Of two writers of one
-- document the second waits for the first, and fails.
--
-- A document without a recent row gets one. That is the compare-and-set then: its entry in the base
-- cannot change meanwhile, and somebody else's recent row keeps ours out.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
-- Raises:  RD003 somebody else recorded one of them meanwhile.
CREATE FUNCTION rowdelta.record(
    p_mapping integer, p_keys bytea[], p_new boolean[], p_expected bytea[],
    p_raw bytea[], p_fingerprint bytea[], p_relations bytea[], p_settled boolean[], p_coverage bytea[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_updated bigint;
    v_inserted bigint;
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    UPDATE rowdelta.document d
    SET raw = n.raw, fingerprint = n.fingerprint, relations = n.relations, settled = n.settled, coverage = n.coverage,
        absent = false, respelled = false, gone = false
    FROM unnest(p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, expected, raw, fingerprint, relations, settled, coverage)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND d.gone = n.new AND (n.new OR d.fingerprint IS NOT DISTINCT FROM n.expected);
    GET DIAGNOSTICS v_updated = ROW_COUNT;
    INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, coverage)
    SELECT p_mapping, n.key, n.raw, n.fingerprint, n.relations, n.settled, n.coverage
    FROM unnest(p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, expected, raw, fingerprint, relations, settled, coverage)
    LEFT JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= n.key
                       ORDER BY b.lowest DESC LIMIT 1) AS b ON true
    CROSS JOIN LATERAL array_position(b.keys, n.key) AS i (at)
    WHERE n.new = (i.at IS NULL) AND (n.new OR b.fingerprint[i.at] IS NOT DISTINCT FROM n.expected)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    IF v_updated + v_inserted <> cardinality(p_keys) THEN
        RAISE EXCEPTION 'a document was recorded by someone else meanwhile' USING ERRCODE = 'RD003';
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.record(integer, bytea[], boolean[], bytea[], bytea[], bytea[], bytea[], boolean[], bytea[]) IS
    'records documents by compare-and-set';

-- rowdelta.renew_recent(p_mapping, p_keys, p_expected, p_raw): renew_raw of the documents that have recent rows.
CREATE FUNCTION rowdelta.renew_recent(p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[])
    RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_renewed bigint;
BEGIN
    UPDATE rowdelta.document d SET raw = n.raw, respelled = true
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND NOT d.gone AND d.fingerprint = n.expected;
    GET DIAGNOSTICS v_renewed = ROW_COUNT;
    RETURN v_renewed;
END
$$;

COMMENT ON FUNCTION rowdelta.renew_recent(integer, bytea[], bytea[], bytea[]) IS 'renew_raw of documents with recent rows';

-- rowdelta.renew_raw(p_mapping, p_keys, p_expected, p_raw)
--
-- Records another spelling of documents whose rows did not change. A document that someone
-- else recorded meanwhile is left alone. Gives the number renewed.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.renew_raw(p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[])
    RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_renewed bigint;
    v_inserted bigint;
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    v_renewed := rowdelta.renew_recent(p_mapping, p_keys, p_expected, p_raw);
    INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    SELECT p_mapping, n.key, n.raw, n.expected, b.relations[i.at], b.settled[i.at], b.absent[i.at], b.coverage[i.at], true
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    CROSS JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= n.key
                        ORDER BY b.lowest DESC LIMIT 1) AS b
    CROSS JOIN LATERAL array_position(b.keys, n.key) AS i (at)
    WHERE b.fingerprint[i.at] = n.expected
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    RETURN v_renewed + v_inserted;
END
$$;

COMMENT ON FUNCTION rowdelta.renew_raw(integer, bytea[], bytea[], bytea[]) IS
    'records another spelling of documents whose rows did not change';

-- rowdelta.renew_spellings(p_mapping, p_keys, p_expected, p_raw)
--
-- As renew_raw, for the many documents of a run of which each came in another spelling: where they are a good part of what
-- the base has from the first of their keys to the last, their raw fingerprints are written there, and no recent row is
-- made that a merge would have to pack. Where they are few, or somebody is at work, it is renew_raw. Gives the number
-- renewed, and whether rows of the base were written.
--
-- Locks:   the mapping's base lock, exclusively if nobody has it, or else shared, to the end of the transaction; the
--          documents' rows.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.renew_spellings(
    p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[], OUT renewed bigint, OUT in_base boolean
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    -- Not a loop over all documents for each of them, however few the server takes them for.
    SET enable_nestloop = off
    SET enable_hashjoin = on
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_first bytea;
    v_last  bytea;
    v_from  bytea;
    v_based bigint;
    v_rows  bytea[];
BEGIN
    in_base := pg_try_advisory_xact_lock(hashtext('rowdelta.base'), p_mapping);
    PERFORM rowdelta.hold_base(p_mapping);
    SELECT k.keys[1], k.keys[cardinality(k.keys)] INTO v_first, v_last
    FROM (SELECT array_agg(k.key ORDER BY k.key) AS keys FROM unnest(p_keys) AS k (key)) AS k;
    -- From the beginning of the range that holds the first key.
    SELECT s.lowest INTO v_from FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest <= v_first ORDER BY s.lowest DESC LIMIT 1;
    v_from := coalesce(v_from, v_first);
    SELECT sum(s.documents) INTO v_based FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest >= v_from AND s.lowest <= v_last;
    in_base := in_base AND cardinality(p_keys) >= rowdelta.merge_share() * v_based;
    IF in_base IS NOT TRUE THEN
        in_base := false;
        renewed := rowdelta.renew_raw(p_mapping, p_keys, p_expected, p_raw);
        RETURN;
    END IF;
    WITH said AS MATERIALIZED (
        -- Each once: what is packed would be out of step.
        SELECT DISTINCT ON (n.key) n.key, n.expected, n.raw
        FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
        -- Recent rows hide what the base has.
        WHERE n.key NOT IN (SELECT d.key FROM rowdelta.document d
                            WHERE d.mapping = p_mapping AND d.key >= v_first AND d.key <= v_last)
    ), based AS MATERIALIZED (
        -- By itself: joined in one, all that is said would be read for each row of the base.
        SELECT b.lowest, e.key, e.raw, e.fingerprint, e.respelled, e.at
        FROM rowdelta.base b
        CROSS JOIN LATERAL unnest(b.keys, b.raw, b.fingerprint, b.respelled)
            WITH ORDINALITY AS e (key, raw, fingerprint, respelled, at)
        WHERE b.mapping = p_mapping AND b.lowest >= v_from AND b.lowest <= v_last
    ), entries AS (
        SELECT b.lowest, b.at, coalesce(n.raw, b.raw) AS raw, b.respelled OR n.raw IS NOT NULL AS respelled,
               n.raw IS NOT NULL AS is_new
        FROM based b LEFT JOIN said n ON n.key = b.key AND n.expected = b.fingerprint
    ), packed AS (
        SELECT e.lowest, array_agg(e.raw ORDER BY e.at) AS raw, array_agg(e.respelled ORDER BY e.at) AS respelled,
               count(*) FILTER (WHERE e.is_new) AS renewed
        FROM entries e GROUP BY e.lowest HAVING bool_or(e.is_new)
    ), written AS (
        UPDATE rowdelta.base b SET raw = p.raw, respelled = p.respelled
        FROM packed p WHERE b.mapping = p_mapping AND b.lowest = p.lowest
        RETURNING b.lowest, p.renewed
    )
    SELECT coalesce(sum(w.renewed), 0), array_agg(w.lowest) INTO renewed, v_rows FROM written w;
    UPDATE rowdelta.skip s
    SET (keys, raws) = (
        SELECT coalesce(array_agg(e.key ORDER BY e.key), '{}'), coalesce(string_agg(e.raw, '' ORDER BY e.key), '')
        FROM rowdelta.base b CROSS JOIN LATERAL unnest(b.keys, b.raw, b.settled) AS e (key, raw, settled)
        WHERE b.mapping = p_mapping AND b.lowest >= s.lowest AND b.lowest <= s.highest
          AND e.settled AND octet_length(e.raw) = 16)
    WHERE s.mapping = p_mapping AND s.lowest >= v_from AND s.lowest <= v_last
      AND EXISTS (SELECT FROM unnest(v_rows) AS r (lowest) WHERE r.lowest >= s.lowest AND r.lowest <= s.highest);
    renewed := renewed + rowdelta.renew_recent(p_mapping, p_keys, p_expected, p_raw);
END
$$;

COMMENT ON FUNCTION rowdelta.renew_spellings(integer, bytea[], bytea[], bytea[]) IS
    'records other spellings of many documents whose rows did not change';

-- rowdelta.unsettle(p_mapping, p_keys)
--
-- Forgets the fingerprints of documents: rows were taken from them, or they must be done
-- again for another reason. A writer that read the old state fails its compare-and-set.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.unsettle(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    IF cardinality(p_keys) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET raw = NULL, fingerprint = NULL, relations = '', settled = false, respelled = false
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle(integer, bytea[]) IS 'forgets what is recorded of documents';

-- rowdelta.forget(p_mapping, p_keys)
--
-- Drops what is recorded of documents whose rows have another key now. A writer that read the
-- old state fails its compare-and-set. Gives the number dropped.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.forget(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_based bytea[];
    v_gone  bigint;
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    v_based := ARRAY(SELECT b.key FROM rowdelta.base_of(p_mapping, p_keys) b);
    UPDATE rowdelta.document d
    SET raw = NULL, fingerprint = NULL, relations = '', settled = false, absent = false, coverage = NULL,
        respelled = false, gone = true
    WHERE d.mapping = p_mapping AND d.key = ANY (v_based) AND NOT d.gone;
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    -- Never one that the base has, which would be there again: it may have been recorded since the last statement.
    DELETE FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND d.key <> ALL (v_based) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    DELETE FROM rowdelta.rewritten r WHERE r.mapping = p_mapping AND r.key = ANY (p_keys);
    RETURN v_gone + v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.forget(integer, bytea[]) IS 'drops what is recorded of documents';

-- rowdelta.rewritten_rows(p_mapping, p_keys)
--
-- The rows of documents that triggers stored otherwise than they were sent: one row for each relation that has any.
CREATE FUNCTION rowdelta.rewritten_rows(p_mapping integer, p_keys bytea[])
    RETURNS TABLE (key bytea, relation text, forms bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT r.key, r.relation, r.forms FROM rowdelta.rewritten r
    WHERE r.mapping = p_mapping AND r.key = ANY (p_keys)
$$;

COMMENT ON FUNCTION rowdelta.rewritten_rows(integer, bytea[]) IS
    'the rows of documents that triggers stored otherwise than they were sent';

-- rowdelta.record_rewritten(p_mapping, p_keys, p_relations, p_forms)
--
-- Records the rewritten rows of relations of documents, in place of those that were known; none: an empty string.
CREATE FUNCTION rowdelta.record_rewritten(p_mapping integer, p_keys bytea[], p_relations text[], p_forms bytea[])
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    DELETE FROM rowdelta.rewritten r USING unnest(p_keys, p_relations, p_forms) AS n (key, relation, forms)
    WHERE r.mapping = p_mapping AND r.key = n.key AND r.relation = n.relation AND n.forms = '';
    INSERT INTO rowdelta.rewritten AS r (mapping, key, relation, forms)
    SELECT p_mapping, n.key, n.relation, n.forms
    FROM unnest(p_keys, p_relations, p_forms) AS n (key, relation, forms)
    WHERE n.forms <> ''
    ON CONFLICT ON CONSTRAINT rewritten_pkey DO UPDATE SET forms = excluded.forms;
END
$$;

COMMENT ON FUNCTION rowdelta.record_rewritten(integer, bytea[], text[], bytea[]) IS
    'records the rows that triggers stored otherwise than they were sent';

-- rowdelta.present(p_mapping): the keys of all documents but those that are marked as absent.
CREATE FUNCTION rowdelta.present(p_mapping integer) RETURNS SETOF bytea
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.key FROM rowdelta.document d WHERE d.mapping = p_mapping AND NOT d.absent AND NOT d.gone
    UNION ALL
    SELECT e.key FROM rowdelta.base b CROSS JOIN LATERAL unnest(b.keys, b.absent) AS e (key, absent)
    WHERE b.mapping = p_mapping AND NOT e.absent
      AND e.key NOT IN (SELECT d.key FROM rowdelta.document d WHERE d.mapping = p_mapping)
$$;

COMMENT ON FUNCTION rowdelta.present(integer) IS 'keys of the documents that are not marked as absent';

-- rowdelta.counted(p_mapping): how many documents are recorded, and how many of them are not settled.
CREATE FUNCTION rowdelta.counted(p_mapping integer) RETURNS TABLE (documents bigint, unsettled bigint)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT r.documents + coalesce(s.documents, 0) - h.documents, r.unsettled + coalesce(s.unsettled, 0) - h.unsettled
    FROM (SELECT count(*) FILTER (WHERE NOT d.gone) AS documents,
                 count(*) FILTER (WHERE NOT d.gone AND NOT d.settled) AS unsettled, array_agg(d.key) AS keys
          FROM rowdelta.document d WHERE d.mapping = p_mapping) AS r
    CROSS JOIN (SELECT sum(s.documents) AS documents, sum(s.unsettled) AS unsettled
                FROM rowdelta.skip s WHERE s.mapping = p_mapping) AS s
    -- Those of the base of which something else was recorded since.
    CROSS JOIN LATERAL (SELECT count(*) AS documents, count(*) FILTER (WHERE NOT b.settled) AS unsettled
                        FROM rowdelta.base_of(p_mapping, r.keys) b) AS h
$$;

COMMENT ON FUNCTION rowdelta.counted(integer) IS 'how many documents are recorded, and how many of them are not settled';

-- rowdelta.absent(p_mapping, p_keys)
--
-- Notes that the root rows of documents are marked. Should one be in a feed again it is looked at. Gives the number
-- noted.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.absent(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET raw = NULL, settled = false, absent = true
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.absent(integer, bytea[]) IS 'notes that documents are marked as absent';

-- rowdelta.unsettle_all(p_mapping)
--
-- Every document is to be compared by the next run: a table lost its rows. Fingerprints stay, so that
-- writers at work keep their compare-and-set. Gives the number of documents.
--
-- Locks:   the documents' rows; the mapping's base lock, exclusively, to the end of the transaction: it waits for
--          the transactions that record documents.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.unsettle_all(p_mapping integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('rowdelta.base'), p_mapping);
    PERFORM rowdelta.hold_base(p_mapping);
    SELECT c.documents - c.unsettled INTO v_count FROM rowdelta.counted(p_mapping) c;
    UPDATE rowdelta.document d SET raw = NULL, settled = false WHERE d.mapping = p_mapping AND d.settled;
    UPDATE rowdelta.base b
    SET raw = ARRAY(SELECT CASE WHEN NOT e.settled THEN e.raw END
                    FROM unnest(b.raw, b.settled) WITH ORDINALITY AS e (raw, settled, at) ORDER BY e.at),
        settled = array_fill(false, ARRAY[cardinality(b.keys)])
    WHERE b.mapping = p_mapping AND true = ANY (b.settled);
    UPDATE rowdelta.skip s SET keys = '{}', raws = '', unsettled = s.documents
    WHERE s.mapping = p_mapping AND s.unsettled < s.documents;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle_all(integer) IS 'has every document compared by the next run';

-- rowdelta.settle(p_mapping, p_keys, p_fingerprints)
--
-- Declares documents done whose removals had been held back. One that somebody else
-- recorded meanwhile is left alone. Gives the number settled.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.settle(p_mapping integer, p_keys bytea[], p_fingerprints bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET settled = true
    FROM unnest(p_keys, p_fingerprints) AS n (key, fingerprint)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND NOT d.gone AND d.fingerprint = n.fingerprint AND NOT d.settled;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.settle(integer, bytea[], bytea[]) IS
    'declares documents done whose removals had been held back';

-- rowdelta.pack(p_mapping, p_documents)
--
-- Writes documents to the base, where none may be between the first of them and the last. Every row is filled as far as
-- a page goes, with the same share of its documents as the others.
CREATE FUNCTION rowdelta.pack(p_mapping integer, p_documents rowdelta.document[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    WITH sized AS (
        -- Elements of an array have a head of four bytes, and begin at multiples of four.
        SELECT d.*, octet_length(d.key) + octet_length(d.relations) + coalesce(octet_length(d.coverage), 0) + 64 AS width,
               octet_length(d.key) + 22 AS skip_width
        FROM unnest(p_documents) AS d
    ), parted AS (
        SELECT s.*, (sum(s.width) OVER (ORDER BY s.key) - s.width) * div(7699 + sum(s.width) OVER (), 7700)
                    / sum(s.width) OVER () AS place
        FROM sized s
    ), packed AS MATERIALIZED (
        SELECT array_agg(p.key ORDER BY p.key) AS keys, array_agg(p.raw ORDER BY p.key) AS raw,
               array_agg(p.fingerprint ORDER BY p.key) AS fingerprint, array_agg(p.relations ORDER BY p.key) AS relations,
               array_agg(p.settled ORDER BY p.key) AS settled, array_agg(p.absent ORDER BY p.key) AS absent,
               array_agg(p.coverage ORDER BY p.key) AS coverage, array_agg(p.respelled ORDER BY p.key) AS respelled,
               sum(p.skip_width) AS skip_width
        FROM parted p GROUP BY floor(p.place)
    ), written AS (
        INSERT INTO rowdelta.base (mapping, lowest, keys, raw, fingerprint, relations, settled, absent, coverage, respelled)
        SELECT p_mapping, p.keys[1], p.keys, p.raw, p.fingerprint, p.relations, p.settled, p.absent, p.coverage, p.respelled
        FROM packed p
    ), ranged AS (
        SELECT p.keys, p.raw, p.settled, div(sum(p.skip_width) OVER (ORDER BY p.keys[1]) - p.skip_width, 6000) AS range
        FROM packed p
    )
    INSERT INTO rowdelta.skip (mapping, lowest, highest, documents, unsettled, keys, raws)
    SELECT p_mapping, (array_agg(e.key ORDER BY e.key))[1], (array_agg(e.key ORDER BY e.key DESC))[1], count(*),
           count(*) FILTER (WHERE NOT e.settled),
           coalesce(array_agg(e.key ORDER BY e.key) FILTER (WHERE e.settled AND octet_length(e.raw) = 16), '{}'),
           coalesce(string_agg(e.raw, '' ORDER BY e.key) FILTER (WHERE e.settled AND octet_length(e.raw) = 16), '')
    FROM ranged r CROSS JOIN LATERAL unnest(r.keys, r.raw, r.settled) AS e (key, raw, settled)
    GROUP BY r.range
$$;

COMMENT ON FUNCTION rowdelta.pack(integer, rowdelta.document[]) IS 'writes documents to the base';

-- rowdelta.merge_share(): how many recent rows, as a share of the base, make a merge worth its while. A database, or a
-- session, may set its own: SET rowdelta.merge_share = 0.5.
CREATE FUNCTION rowdelta.merge_share() RETURNS float8
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT coalesce(nullif(current_setting('rowdelta.merge_share', true), '')::float8, 0.2)
$$;

COMMENT ON FUNCTION rowdelta.merge_share() IS 'recent rows, as a share of the base, from which on they are merged';

-- rowdelta.merge_due(p_mapping): whether a merge is worth its while. A few hundred recent rows never are, unless the
-- database has a share of its own.
CREATE FUNCTION rowdelta.merge_due(p_mapping integer) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT (SELECT count(*) FROM rowdelta.document d WHERE d.mapping = p_mapping)
           > greatest(CASE WHEN coalesce(current_setting('rowdelta.merge_share', true), '') = '' THEN 500 ELSE 0 END,
                      rowdelta.merge_share()
                      * (SELECT coalesce(sum(s.documents), 0) FROM rowdelta.skip s WHERE s.mapping = p_mapping))
$$;

COMMENT ON FUNCTION rowdelta.merge_due(integer) IS 'whether a merge is worth its while';

-- rowdelta.merge(p_mapping, p_from, p_documents)
--
-- Moves recent rows to the base, those from a key on ('': from the first) and of some `p_documents`: what is recorded
-- stays the same. Where few of so many documents have recent rows these are left. Gives the key at which to go on, in a
-- transaction of its own; NULL: that was all, or somebody is at work.
--
-- Locks:   the mapping's base lock, exclusively, to the end of the transaction, if nobody has it; it waits for nobody.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.merge(p_mapping integer, p_from bytea, p_documents integer DEFAULT 5000) RETURNS bytea
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_from      bytea := p_from;
    v_to        bytea;
    v_cut       bytea;
    v_recent    bigint;
    v_based     bigint;
    v_documents rowdelta.document[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('rowdelta.base'), p_mapping) THEN
        RETURN NULL;
    END IF;
    PERFORM rowdelta.hold_base(p_mapping);
    -- From the beginning of the range that holds the key: somebody else may have merged since it was given.
    SELECT s.lowest INTO v_cut FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest <= p_from ORDER BY s.lowest DESC LIMIT 1;
    IF EXISTS (SELECT FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest = v_cut AND s.highest >= p_from) THEN
        v_from := v_cut;
    END IF;
    -- To the beginning of a range, before which there are enough documents in the base;
    SELECT s.lowest INTO v_to
    FROM (SELECT s.lowest, sum(s.documents) OVER (ORDER BY s.lowest) - s.documents AS before
          FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest >= v_from) AS s
    WHERE s.before >= p_documents ORDER BY s.lowest LIMIT 1;
    -- or, if that is sooner, to a key before which there are enough recent rows, or the beginning of the next range if
    -- one holds it.
    SELECT d.key INTO v_cut FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= v_from ORDER BY d.key OFFSET p_documents LIMIT 1;
    IF v_cut IS NOT NULL THEN
        IF v_cut <= (SELECT s.highest FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest <= v_cut
                     ORDER BY s.lowest DESC LIMIT 1) THEN
            v_cut := (SELECT s.lowest FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest > v_cut
                      ORDER BY s.lowest LIMIT 1);
        END IF;
        v_to := least(v_to, v_cut);
    END IF;
    SELECT count(*) INTO v_recent FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to);
    SELECT coalesce(sum(s.documents), 0) INTO v_based FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest >= v_from AND (v_to IS NULL OR s.lowest < v_to);
    -- Half the share that makes a merge due: what is left everywhere does not make it due again.
    IF v_recent > 0 AND v_recent >= rowdelta.merge_share() / 2 * v_based THEN
        v_documents := ARRAY(SELECT d FROM rowdelta.span(p_mapping, v_from, v_to) AS d);
        DELETE FROM rowdelta.document d
        WHERE d.mapping = p_mapping AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to);
        DELETE FROM rowdelta.base b
        WHERE b.mapping = p_mapping AND b.lowest >= v_from AND (v_to IS NULL OR b.lowest < v_to);
        DELETE FROM rowdelta.skip s
        WHERE s.mapping = p_mapping AND s.lowest >= v_from AND (v_to IS NULL OR s.lowest < v_to);
        PERFORM rowdelta.pack(p_mapping, v_documents);
    END IF;
    RETURN v_to;
END
$$;

COMMENT ON FUNCTION rowdelta.merge(integer, bytea, integer) IS 'moves recent rows to the base, a part of them';

-- ---- A mapping as the SQL functions read it ----------------------------------------------------
--
-- What a document says is worked on as arrays of the types below, a row each, of all relations and all documents of a
-- call: no statement is made for a document, and no table is made for a call. Of a column its cells are known as text,
-- which the column's type takes back as the same value, and in comparison form: the bytes that fingerprints are made of.
--
-- The functions to call set all on which reading and writing of values depends: a session's settings decide nothing. What
-- the planner thinks that arrays cost is never worth compiling.

CREATE TYPE rowdelta.mapped_column AS (
    name     text,
    paths    jsonb,
    places   text[],
    lookup   text,
    zone     text,
    keeps    boolean,
    nullable boolean,
    source   text,
    sql      text,
    spelled  text,
    parts    text,
    kind     text,
    length   integer,
    number   smallint,
    element  oid,
    modifier integer,
    input    text,
    send     text
);

COMMENT ON TYPE rowdelta.mapped_column IS
    'a mapped column: where its value comes from, how messages about it begin (of a reference, by keys), and its type';

CREATE TYPE rowdelta.relation AS (
    ix           integer,
    name         text,
    kind         text,
    enclosing    integer,
    encloses     boolean,
    path         jsonb,
    in_schema    text,
    in_table     text,
    tbl          text,
    oid          oid,
    id           text,
    id_default   text,
    id_type      text,
    parent       text[],
    parent_types text[],
    key          text[],
    key_at       integer[],
    everywhere   boolean,
    when_absent  text,
    when_null    text,
    on_duplicate text,
    columns      rowdelta.mapped_column[],
    digest       bytea
);

COMMENT ON TYPE rowdelta.relation IS 'a relation of a mapping, and its table';

CREATE TYPE rowdelta.lookup AS (
    name      text,
    in_schema text,
    in_table  text,
    tbl       text,
    oid       oid,
    id        text,
    key       text[],
    missing   text,
    nullable  text[],
    keys      rowdelta.mapped_column[],
    columns   rowdelta.mapped_column[],
    source    text
);

COMMENT ON TYPE rowdelta.lookup IS 'a catalogue of a mapping, and its table';

-- rowdelta.refuse(p_message): fails because of what a document holds. Of any type, to stand in for a value.
-- Raises:  RD006 a document does not fit its mapping.
CREATE FUNCTION rowdelta.refuse(p_message text) RETURNS text
    -- Not immutable: of a message that is known beforehand the planner would see the failure.
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '%', p_message USING ERRCODE = 'RD006';
END
$$;

COMMENT ON FUNCTION rowdelta.refuse(text) IS 'fails: a document does not fit its mapping';

-- rowdelta.fault(p_place, p_message): fails because of what a mapping says.
-- Raises:  RD005 a mapping is not one for the SQL functions.
CREATE FUNCTION rowdelta.fault(p_place text, p_message text) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '%: %', p_place, p_message USING ERRCODE = 'RD005';
END
$$;

COMMENT ON FUNCTION rowdelta.fault(text, text) IS 'fails: a mapping is not one for the SQL functions';

-- rowdelta.led_by(p_path): how messages about a value begin: with its path; of the item itself with nothing.
CREATE FUNCTION rowdelta.led_by(p_path text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE p_path WHEN '.' THEN '' ELSE p_path || ': ' END;
END
$$;

COMMENT ON FUNCTION rowdelta.led_by(text) IS 'how messages about a value begin';

-- rowdelta.names(p_path, p_place): the parts of a dotted name, '.' before each that is a field, '^' for one up.
CREATE FUNCTION rowdelta.names(p_path text, p_place text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_rest  text := p_path;
    v_part  text[];
    v_names text[] := '{}';
BEGIN
    IF p_path IS NULL THEN
        PERFORM rowdelta.fault(p_place, 'a name or a path is missing');
    ELSIF p_path = '.' THEN
        RETURN v_names;
    END IF;
    LOOP
        v_part := regexp_match(v_rest, '^(?:"([^"]*)"|([^."][^.]*))(\.|$)');
        IF v_part[2] IN ('@key', '@index') THEN
            PERFORM rowdelta.fault(p_place, format('%s is for the command; the SQL functions do not know it (docs/sql.md)', v_part[2]));
        ELSIF v_part IS NULL OR v_part[2] ~ '^@' THEN
            PERFORM rowdelta.fault(p_place, format('%s is no path: names with dots between them, in quotes where one has a dot or '
                                                   'starts with @', to_json(p_path)));
        END IF;
        IF v_part[2] = '^' AND EXISTS (SELECT FROM unnest(v_names) AS n (name) WHERE n.name <> '^') THEN
            PERFORM rowdelta.fault(p_place, format('^ stands only at the start of a path: %s', to_json(p_path)));
        END IF;
        v_names := v_names || CASE WHEN v_part[2] = '^' THEN '^' ELSE '.' || coalesce(v_part[1], v_part[2]) END;
        EXIT WHEN v_part[3] = '';
        v_rest := substr(v_rest, length(coalesce('"' || v_part[1] || '"', v_part[2])) + 2);
    END LOOP;
    RETURN v_names;
END
$$;

COMMENT ON FUNCTION rowdelta.names(text, text) IS 'the parts of a path';

-- rowdelta.path_source(p_path): a path as the digest of a relation has it.
CREATE FUNCTION rowdelta.path_source(p_path jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT '[' || coalesce(string_agg(
                   CASE e.part WHEN '^' THEN '"up"' ELSE '{"field":' || to_json(substr(e.part, 2)) || '}' END, ','
                   ORDER BY e.at), '') || ']'
        FROM jsonb_array_elements_text(p_path) WITH ORDINALITY AS e (part, at));
END
$$;

COMMENT ON FUNCTION rowdelta.path_source(jsonb) IS 'a path as digests have it';

-- rowdelta.list_source(p_names): a list of strings as the digest of a relation has it.
CREATE FUNCTION rowdelta.list_source(p_names text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT '[' || coalesce(string_agg(to_json(n.name)::text, ',' ORDER BY n.at), '') || ']'
        FROM unnest(p_names) WITH ORDINALITY AS n (name, at));
END
$$;

COMMENT ON FUNCTION rowdelta.list_source(text[]) IS 'a list of strings as digests have it';

-- rowdelta.kind_words(p_value): the kind of a value of a mapping, for messages.
CREATE FUNCTION rowdelta.kind_words(p_value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE jsonb_typeof(p_value) WHEN 'array' THEN 'an array' WHEN 'object' THEN 'an object' WHEN 'null' THEN 'null'
                                      ELSE 'a ' || jsonb_typeof(p_value) END;
END
$$;

COMMENT ON FUNCTION rowdelta.kind_words(jsonb) IS 'the kind of a value of a mapping';

-- rowdelta.strings(p_value): one string, or a list of strings, as a list.
CREATE FUNCTION rowdelta.strings(p_value jsonb, p_place text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE jsonb_typeof(p_value)
            WHEN 'string' THEN ARRAY[p_value #>> '{}']
            WHEN 'array' THEN ARRAY(SELECT e.name FROM jsonb_array_elements_text(p_value) WITH ORDINALITY AS e (name, at)
                                    ORDER BY e.at)
            ELSE ARRAY[rowdelta.fault(p_place, 'expected a string or a list of strings, found ' || rowdelta.kind_words(p_value))] END
        WHERE p_value IS NOT NULL);
END
$$;

COMMENT ON FUNCTION rowdelta.strings(jsonb, text) IS 'one string, or several, as a list';

-- rowdelta.known(p_node, p_known, p_place): fails where a table of a mapping has a key that is not among these.
CREATE FUNCTION rowdelta.known(p_node jsonb, p_known text[], p_place text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_key text;
BEGIN
    IF jsonb_typeof(p_node) IS DISTINCT FROM 'object' THEN
        PERFORM rowdelta.fault(coalesce(nullif(p_place, ''), 'mapping'),
                               'expected an object, found ' || coalesce(rowdelta.kind_words(p_node), 'nothing'));
    END IF;
    SELECT k.key INTO v_key FROM jsonb_object_keys(p_node) AS k (key) WHERE k.key <> ALL (p_known) LIMIT 1;
    IF FOUND THEN
        PERFORM rowdelta.fault(concat_ws('.', nullif(p_place, ''), v_key), CASE
            WHEN v_key IN ('alternate_key', 'pair', 'where', 'otherwise', 'when_single', 'position', 'value', 'ignore', 'nul', 'nfc',
                           'mark_hash', 'mark_time', 'mark_absent')
            THEN 'is for the command; the SQL functions do not know it (docs/sql.md)'
            ELSE 'unknown key; known here: ' || array_to_string(p_known, ', ') END);
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.known(jsonb, text[], text) IS 'fails where a mapping has a key that is not known here';

-- rowdelta.choice(p_node, p_key, p_words, p_default, p_place): one of some words, or the default.
CREATE FUNCTION rowdelta.choice(p_node jsonb, p_key text, p_words text[], p_default text, p_place text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN NOT p_node ? p_key THEN p_default
                WHEN p_node ->> p_key = ANY (p_words) THEN p_node ->> p_key
                ELSE rowdelta.fault(p_place || '.' || p_key, format(
                    'expected %s, found %s', (SELECT string_agg(to_json(w.word)::text, ' or ' ORDER BY w.at)
                                              FROM unnest(p_words) WITH ORDINALITY AS w (word, at)), rowdelta.found(p_node -> p_key))) END;
END
$$;

COMMENT ON FUNCTION rowdelta.choice(jsonb, text, text[], text, text) IS 'the word that a key of a mapping has';

-- rowdelta.needs(p_node, p_keys, p_place): fails where a table of a mapping lacks one of these keys, or has nothing under it.
CREATE FUNCTION rowdelta.needs(p_node jsonb, p_keys text[], p_place text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_key  text;
    v_type text;
BEGIN
    FOREACH v_key IN ARRAY p_keys LOOP
        IF coalesce(p_node -> v_key, 'null') IN ('null', '""', '[]', '{}') THEN
            PERFORM rowdelta.fault(p_place || '.' || v_key, CASE WHEN p_node ? v_key THEN 'empty; ' ELSE 'missing; ' END || CASE v_key
                WHEN 'parent' THEN 'name the column that refers to the enclosing row'
                WHEN 'target' THEN 'name the column that refers to the catalogue'
                WHEN 'id' THEN 'name the column that referring columns hold'
                WHEN 'key' THEN 'name the columns that tell rows apart'
                WHEN 'match' THEN 'give a path for each key column of the lookup'
                WHEN 'columns' THEN 'say where the value of each column is'
                ELSE format('add "%s": "..."', v_key) END);
        END IF;
    END LOOP;
    FOR v_key, v_type IN
        SELECT e.key, t.type FROM jsonb_each(p_node) AS e CROSS JOIN LATERAL (
            SELECT CASE WHEN e.key IN ('columns', 'match') THEN 'object' WHEN e.key IN ('children', 'links') THEN 'array'
                        WHEN e.key = 'nullable' THEN 'boolean'
                        WHEN e.key IN ('name', 'table', 'id', 'target', 'lookup', 'zone') THEN 'string' END AS type) AS t
        WHERE jsonb_typeof(e.value) <> t.type
    LOOP
        PERFORM rowdelta.fault(p_place || '.' || v_key, format(
            'expected %s %s, found %s', CASE WHEN v_type IN ('object', 'array') THEN 'an' ELSE 'a' END, v_type,
            rowdelta.kind_words(p_node -> v_key)));
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.needs(jsonb, text[], text) IS 'fails where a mapping lacks a key';

-- rowdelta.column_of(p_name, p_node, p_key, p_absent, p_place): reads a column of a relation.
--
-- p_key: the columns of the relation's key; NULL: its rows are identified by content.
CREATE FUNCTION rowdelta.column_of(p_name text, p_node jsonb, p_key text[], p_absent text, p_place text)
    RETURNS rowdelta.mapped_column
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_column rowdelta.mapped_column;
    v_node   jsonb := p_node;
BEGIN
    IF jsonb_typeof(v_node) <> 'object' THEN
        v_node := jsonb_build_object('path', v_node);
    END IF;
    PERFORM rowdelta.known(v_node, ARRAY['path', 'zone', 'type', 'when_absent', 'nullable', 'lookup', 'match'], p_place);
    PERFORM rowdelta.needs(v_node, '{}', p_place);
    IF v_node ? 'zone' THEN
        BEGIN
            PERFORM timezone(v_node ->> 'zone', 'epoch'::timestamptz);
        EXCEPTION WHEN invalid_parameter_value THEN
            PERFORM rowdelta.fault(p_place || '.zone', format('no time zone %s', to_json(v_node ->> 'zone')));
        END;
    END IF;
    v_column.name := p_name;
    v_column.keeps := p_key IS NOT NULL AND p_name <> ALL (p_key)
        AND rowdelta.choice(v_node, 'when_absent', ARRAY['keep', 'null'], p_absent, p_place) = 'keep';
    v_column.nullable := coalesce((v_node ->> 'nullable')::boolean, false);
    v_column.lookup := v_node ->> 'lookup';
    v_column.zone := v_node ->> 'zone';
    IF v_column.lookup IS NULL THEN
        SELECT jsonb_agg(to_jsonb(rowdelta.names(s.path, p_place)) ORDER BY s.at) INTO v_column.paths
        FROM unnest(rowdelta.strings(v_node -> 'path', p_place)) WITH ORDINALITY AS s (path, at);
        v_column.places := ARRAY[rowdelta.led_by(array_to_string(rowdelta.strings(v_node -> 'path', p_place), ', '))];
        IF v_column.paths IS NULL THEN
            PERFORM rowdelta.fault(p_place, 'say where the value is (path), or which lookup gives it');
        END IF;
        SELECT '{"path":{"paths":[' || string_agg(rowdelta.path_source(e.path), ',' ORDER BY e.at) || '],"zone":'
               || coalesce(to_json(v_column.zone)::text, 'null') || '}}' INTO v_column.source
        FROM jsonb_array_elements(v_column.paths) WITH ORDINALITY AS e (path, at);
    END IF;
    RETURN v_column;
END
$$;

COMMENT ON FUNCTION rowdelta.column_of(text, jsonb, text[], text, text) IS 'reads a column of a mapping';

-- rowdelta.matching(p_column, p_match, p_lookups, p_place): a column with the paths of the keys of its catalogue.
CREATE FUNCTION rowdelta.matching(
    p_column rowdelta.mapped_column, p_match jsonb, p_lookups rowdelta.lookup[], p_place text
) RETURNS rowdelta.mapped_column
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_column rowdelta.mapped_column := p_column;
    v_lookup rowdelta.lookup;
BEGIN
    SELECT l.* INTO v_lookup FROM unnest(p_lookups) AS l WHERE l.name = p_column.lookup;
    IF v_lookup.name IS NULL THEN
        PERFORM rowdelta.fault(p_place || '.lookup', format('no lookup %s; add lookups.%s', to_json(p_column.lookup), p_column.lookup));
    END IF;
    PERFORM rowdelta.known(p_match, v_lookup.key, p_place || '.match');
    PERFORM rowdelta.needs(p_match, v_lookup.key, p_place || '.match');
    SELECT jsonb_agg(to_jsonb(rowdelta.names(p_match ->> k.name, p_place)) ORDER BY k.at),
           array_agg(rowdelta.led_by(p_match ->> k.name) ORDER BY k.at) INTO v_column.paths, v_column.places
    FROM unnest(v_lookup.key) WITH ORDINALITY AS k (name, at);
    SELECT '{"lookup":{"matching":[' || string_agg(rowdelta.path_source(e.path), ',' ORDER BY e.at) || ']}}'
    INTO v_column.source FROM jsonb_array_elements(v_column.paths) WITH ORDINALITY AS e (path, at);
    RETURN v_column;
END
$$;

COMMENT ON FUNCTION rowdelta.matching(rowdelta.mapped_column, jsonb, rowdelta.lookup[], text) IS
    'a column with the paths of the keys of its catalogue';

-- rowdelta.table_source(p_schema, p_table): the name of a table as digests have it.
CREATE FUNCTION rowdelta.table_source(p_schema text, p_table text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN '{"schema":' || coalesce(to_json(p_schema)::text, 'null') || ',"table":' || to_json(p_table) || '}';
END
$$;

COMMENT ON FUNCTION rowdelta.table_source(text, text) IS 'the name of a table as digests have it';

-- rowdelta.lookups(p_definition): reads the catalogues of a mapping.
CREATE FUNCTION rowdelta.lookups(p_definition jsonb) RETURNS rowdelta.lookup[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_lookups rowdelta.lookup[] := '{}';
    v_lookup  rowdelta.lookup;
    v_column  rowdelta.mapped_column;
    v_name    text;
    v_node    jsonb;
    v_place   text;
    v_table   text[];
    v_key     text;
    v_value   jsonb;
BEGIN
    FOR v_name, v_node IN SELECT e.key, e.value FROM jsonb_each(coalesce(p_definition -> 'lookups', '{}')) AS e LOOP
        v_place := 'lookups.' || v_name;
        PERFORM rowdelta.known(v_node, ARRAY['table', 'id', 'key', 'missing', 'columns'], v_place);
        PERFORM rowdelta.needs(v_node, ARRAY['table', 'id', 'key'], v_place);
        v_table := rowdelta.names(v_node ->> 'table', v_place || '.table');
        v_lookup := NULL;
        v_lookup.name := v_name;
        v_lookup.in_table := substr(v_table[cardinality(v_table)], 2);
        v_lookup.in_schema := substr(CASE WHEN cardinality(v_table) = 2 THEN v_table[1] END, 2);
        v_lookup.id := v_node ->> 'id';
        v_lookup.key := rowdelta.strings(v_node -> 'key', v_place || '.key');
        v_lookup.missing := rowdelta.choice(v_node, 'missing', ARRAY['error', 'insert', 'skip'], 'error', v_place);
        v_lookup.columns := '{}';
        v_lookup.nullable := '{}';
        FOR v_key, v_value IN SELECT e.key, e.value FROM jsonb_each(coalesce(v_node -> 'columns', '{}')) AS e LOOP
            IF jsonb_typeof(v_value) <> 'object' THEN
                v_value := jsonb_build_object('path', v_value);
            END IF;
            PERFORM rowdelta.known(v_value, ARRAY['path', 'type', 'nullable'], v_place || '.columns.' || v_key);
            IF v_key <> ALL (v_lookup.key) THEN
                v_column := rowdelta.column_of(v_key, v_value - 'nullable', NULL, 'null', v_place || '.columns.' || v_key);
                v_lookup.columns := v_lookup.columns || v_column;
            ELSIF v_value ->> 'nullable' = 'true' THEN
                v_lookup.nullable := v_lookup.nullable || v_key;
            END IF;
        END LOOP;
        v_lookup.keys := ARRAY(SELECT ROW(k.name, NULL, NULL, NULL, NULL, false, k.name = ANY (v_lookup.nullable), NULL, NULL,
                                          NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::rowdelta.mapped_column
                               FROM unnest(v_lookup.key) WITH ORDINALITY AS k (name, at) ORDER BY k.at);
        SELECT '{"name":' || to_json(v_name) || ',"table":' || rowdelta.table_source(v_lookup.in_schema, v_lookup.in_table)
               || ',"id":' || to_json(v_lookup.id) || ',"key":' || rowdelta.list_source(v_lookup.key) || ',"missing":"'
               || v_lookup.missing || '","columns":['
               || coalesce(string_agg('[' || to_json(c.name) || ',' || rowdelta.path_source(c.paths -> 0) || ']', ','
                                      ORDER BY octet_length(c.name), convert_to(c.name, 'UTF8')), '') || ']}'
        INTO v_lookup.source FROM unnest(v_lookup.columns) AS c;
        v_lookups := v_lookups || v_lookup;
    END LOOP;
    RETURN v_lookups;
END
$$;

COMMENT ON FUNCTION rowdelta.lookups(jsonb) IS 'reads the catalogues of a mapping';

-- rowdelta.read_relation(p_relations, p_node, p_kind, p_outer, p_absent, p_lookups)
--
-- Appends a relation, and those inside it, to those that were read before: children, then links, as the mapping has
-- them. Columns are in the order that jsonb gives the keys of an object, a link's target before them.
CREATE FUNCTION rowdelta.read_relation(
    p_relations rowdelta.relation[], p_node jsonb, p_kind text, p_outer integer, p_absent text, p_lookups rowdelta.lookup[]
) RETURNS rowdelta.relation[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_relations rowdelta.relation[] := p_relations;
    v           rowdelta.relation;
    v_column    rowdelta.mapped_column;
    v_absent    text;
    v_table     text[];
    v_key       text;
    v_value     jsonb;
    v_inner     jsonb;
    v_depth     integer := 0;
    v_place     text := CASE p_kind WHEN 'root' THEN 'root' WHEN 'child' THEN 'children.' ELSE 'links.' END
                        || CASE p_kind WHEN 'root' THEN '' ELSE coalesce(p_node ->> 'name', '?') END;
BEGIN
    PERFORM rowdelta.known(p_node, CASE p_kind
        WHEN 'root' THEN ARRAY['table', 'key', 'id', 'columns', 'children', 'links', 'absent_columns', 'on_absent']
        WHEN 'child' THEN ARRAY['name', 'path', 'table', 'parent', 'key', 'id', 'unique_in', 'when_absent', 'when_null',
                                'on_duplicate', 'absent_columns', 'columns', 'children', 'links']
        ELSE ARRAY['name', 'path', 'table', 'parent', 'target', 'lookup', 'match', 'when_absent', 'when_null',
                   'on_duplicate', 'absent_columns', 'columns'] END, v_place);
    PERFORM rowdelta.needs(p_node, CASE p_kind WHEN 'root' THEN ARRAY['table', 'key', 'columns']
        WHEN 'child' THEN ARRAY['name', 'table', 'parent', 'columns'] || CASE WHEN p_node ? 'key' THEN ARRAY['key'] ELSE '{}' END
        ELSE ARRAY['name', 'table', 'parent', 'target', 'lookup', 'match'] END, v_place);
    v_table := rowdelta.names(p_node ->> 'table', v_place || '.table');
    v_absent := rowdelta.choice(p_node, 'absent_columns', ARRAY['keep', 'null'], p_absent, v_place);
    v.ix := cardinality(v_relations) + 1;
    v.name := p_node ->> 'name';
    v.kind := p_kind;
    v.enclosing := p_outer;
    v.encloses := jsonb_array_length(coalesce(p_node -> 'children', '[]') || coalesce(p_node -> 'links', '[]')) > 0;
    v.path := CASE WHEN p_kind = 'root' THEN '[]' WHEN p_node ? 'path' THEN to_jsonb(rowdelta.names(p_node ->> 'path', v_place))
                   ELSE jsonb_build_array('.' || v.name) END;
    v.in_table := substr(v_table[cardinality(v_table)], 2);
    v.in_schema := substr(CASE WHEN cardinality(v_table) = 2 THEN v_table[1] END, 2);
    v.id := p_node ->> 'id';
    v.parent := coalesce(rowdelta.strings(p_node -> 'parent', v_place || '.parent'), '{}');
    v.key := CASE p_kind WHEN 'link' THEN ARRAY[p_node ->> 'target'] ELSE rowdelta.strings(p_node -> 'key', v_place || '.key') END;
    v.everywhere := p_kind = 'root'
        OR rowdelta.choice(p_node, 'unique_in', ARRAY['parent', 'all'], 'parent', v_place) = 'all';
    v.when_absent := rowdelta.choice(p_node, 'when_absent', ARRAY['keep', 'empty'], 'keep', v_place);
    v.when_null := rowdelta.choice(p_node, 'when_null', ARRAY['empty', 'keep', 'error'], 'empty', v_place);
    v.on_duplicate := rowdelta.choice(p_node, 'on_duplicate', ARRAY['error', 'first', 'last'],
                                      CASE p_kind WHEN 'link' THEN 'first' ELSE 'error' END, v_place);
    v.columns := '{}';
    IF p_kind = 'link' THEN
        v_column.name := p_node ->> 'target';
        v_column.lookup := p_node ->> 'lookup';
        v_column.keeps := false;
        v_column.nullable := false;
        v.columns := ARRAY[rowdelta.matching(v_column, p_node -> 'match', p_lookups, v_place)];
    END IF;
    FOR v_key, v_value IN SELECT e.key, e.value FROM jsonb_each(coalesce(p_node -> 'columns', '{}')) AS e LOOP
        v_column := rowdelta.column_of(v_key, v_value, v.key, v_absent, v_place || '.columns.' || v_key);
        IF v_column.lookup IS NOT NULL THEN
            v_column := rowdelta.matching(v_column, v_value -> 'match', p_lookups, v_place || '.columns.' || v_key);
        END IF;
        v.columns := v.columns || v_column;
    END LOOP;
    v.key_at := ARRAY(SELECT array_position(ARRAY(SELECT c.name FROM unnest(v.columns) AS c), k.name)
                      FROM unnest(v.key) WITH ORDINALITY AS k (name, at) ORDER BY k.at);
    WHILE p_outer IS NOT NULL LOOP
        v_depth := v_depth + 1;
        p_outer := v_relations[p_outer].enclosing;
    END LOOP;
    SELECT c.name, c.path INTO v_key, v_value FROM (
        SELECT c.name, p.path FROM unnest(v.columns) AS c CROSS JOIN jsonb_array_elements(c.paths) AS p (path)
        UNION ALL SELECT c.name, k.paths -> 0 FROM unnest(v.columns) AS c JOIN unnest(p_lookups) AS l ON l.name = c.lookup
        CROSS JOIN unnest(l.columns) AS k) AS c
    WHERE (SELECT count(*) FROM jsonb_array_elements_text(c.path) AS s (part) WHERE s.part = '^') > v_depth LIMIT 1;
    IF FOUND THEN
        PERFORM rowdelta.fault(v_place || '.columns.' || v_key, format(
            '"%s" leads out of the document; %s', (SELECT string_agg(CASE s.part WHEN '^' THEN '^' ELSE substr(s.part, 2) END, '.' ORDER BY s.at)
                                                   FROM jsonb_array_elements_text(v_value) WITH ORDINALITY AS s (part, at)),
            CASE v_depth WHEN 0 THEN 'leave ^ out' ELSE format('at most %s of ^ stay inside it', v_depth) END));
    ELSIF '["^"]' <@ v.path THEN
        PERFORM rowdelta.fault(v_place || '.path', format('%s is not the path of a list; name the fields that lead to it', p_node -> 'path'));
    END IF;
    v_relations := v_relations || v;
    FOR v_inner IN SELECT e.value FROM jsonb_array_elements(coalesce(p_node -> 'children', '[]')) AS e LOOP
        v_relations := rowdelta.read_relation(v_relations, v_inner, 'child', v.ix, v_absent, p_lookups);
    END LOOP;
    FOR v_inner IN SELECT e.value FROM jsonb_array_elements(coalesce(p_node -> 'links', '[]')) AS e LOOP
        v_relations := rowdelta.read_relation(v_relations, v_inner, 'link', v.ix, v_absent, p_lookups);
    END LOOP;
    RETURN v_relations;
END
$$;

COMMENT ON FUNCTION rowdelta.read_relation(rowdelta.relation[], jsonb, text, integer, text, rowdelta.lookup[]) IS
    'reads a relation of a mapping, and those inside it';

-- rowdelta.spelled(p_type, p_modifier, p_path): a type as a session with this search path spells it.
CREATE FUNCTION rowdelta.spelled(p_type oid, p_modifier integer, p_path name[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM set_config('search_path', array_to_string(ARRAY(SELECT quote_ident(s) FROM unnest(p_path) AS s), ', '), true);
    RETURN pg_catalog.format_type(p_type, p_modifier);
END
$$;

COMMENT ON FUNCTION rowdelta.spelled(oid, integer, name[]) IS 'a type as a session with a search path spells it';

-- rowdelta.find_table(p_schema, p_table, p_path): the table of this name; without a schema the first on the path.
CREATE FUNCTION rowdelta.find_table(p_schema text, p_table text, p_path name[]) RETURNS oid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT c.oid FROM unnest(CASE WHEN p_schema IS NULL THEN p_path ELSE ARRAY[p_schema::name] END)
            WITH ORDINALITY AS s (name, at)
        JOIN pg_namespace n ON n.nspname = s.name JOIN pg_class c ON c.relnamespace = n.oid
        WHERE c.relname = p_table AND c.relkind IN ('r', 'p') ORDER BY s.at LIMIT 1);
END
$$;

COMMENT ON FUNCTION rowdelta.find_table(text, text, name[]) IS 'a table by its name and a search path';

-- rowdelta.kind_of(p_type, p_modifier): how values of a type are made and compared; NULL: not by the SQL functions.
CREATE FUNCTION rowdelta.kind_of(p_type oid, p_modifier integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN t.oid = 16 THEN 'boolean' WHEN t.oid IN (20, 21, 23) THEN 'integer' WHEN t.oid IN (700, 701) THEN 'float'
                    WHEN t.oid = 1700 THEN CASE WHEN p_modifier < 0 THEN 'decimal' ELSE 'numeric' END
                    WHEN t.oid IN (25, 1043) THEN 'text' WHEN t.oid IN (1082, 1114) THEN 'clock' WHEN t.oid = 1184 THEN 'instant'
                    WHEN t.oid = 3802 THEN 'jsonb'
                    WHEN t.oid IN (114, 142) OR t.typtype NOT IN ('b', 'e', 'r', 'm') OR 0 IN (t.typsend, t.typreceive) THEN NULL
                    WHEN t.typcategory = 'A' THEN CASE WHEN t.typelem < 16384 AND rowdelta.kind_of(t.typelem, p_modifier)
                                                            NOT IN ('decimal', 'jsonb', 'array') THEN 'array' END
                    ELSE 'server' END
        FROM pg_type t WHERE t.oid = p_type);
END
$$;

COMMENT ON FUNCTION rowdelta.kind_of(oid, integer) IS 'how values of a type are made and compared';

-- rowdelta.base_type(p_type, p_modifier, p_typtype): a type, or what a domain is over, and its modifier.
CREATE FUNCTION rowdelta.base_type(p_type oid, p_modifier integer, p_typtype "char", OUT oid oid, OUT modifier integer)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_typtype "char" := p_typtype;
BEGIN
    oid := p_type;
    modifier := p_modifier;
    WHILE v_typtype = 'd' LOOP
        SELECT t.typbasetype, t.typtypmod INTO oid, modifier FROM pg_type t WHERE t.oid = base_type.oid;
        SELECT t.typtype INTO v_typtype FROM pg_type t WHERE t.oid = base_type.oid;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.base_type(oid, integer, "char") IS 'a type, or what a domain is over';

-- rowdelta.no_column(p_table, p_name): that a table has no such column, for messages.
CREATE FUNCTION rowdelta.no_column(p_table oid, p_name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format('table %s has no column "%s"; it has %s', p_table::regclass, p_name,
                      left(string_agg(a.attname, ', ' ORDER BY a.attnum), 1000))
        FROM pg_attribute a WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped);
END
$$;

COMMENT ON FUNCTION rowdelta.no_column(oid, text) IS 'that a table has no such column';

-- rowdelta.typed(p_columns, p_tables, p_path, p_places): columns, each of one of the tables, with what the catalog has of their
-- types. p_places: where the tables stand in the mapping.
--
-- Raises:  RD005 a column is not there, or of a type that the SQL functions do not know.
CREATE FUNCTION rowdelta.typed(p_columns rowdelta.mapped_column[], p_tables oid[], p_path name[], p_places text[])
    RETURNS rowdelta.mapped_column[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_columns rowdelta.mapped_column[];
    v_place   text;
    v_name    text;
    v_sql     text;
    v_table   oid;
BEGIN
    v_columns := ARRAY(
        SELECT ROW(m.name, m.paths, m.places, m.lookup, m.zone, m.keeps, m.nullable, m.source,
                   format_type(a.atttypid, a.atttypmod),
                   CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(a.atttypid, a.atttypmod)
                        ELSE rowdelta.spelled(a.atttypid, a.atttypmod, p_path) END,
                   CASE WHEN t.typtype = 'd' THEN rowdelta.spelled(base.oid, base.modifier, p_path) ELSE '' END,
                   CASE WHEN a.attnum IS NOT NULL AND a.attgenerated = '' THEN rowdelta.kind_of(base.oid, base.modifier) END,
                   CASE WHEN base.oid = 1043 AND base.modifier >= 4 THEN base.modifier - 4 END,
                   a.attnum, CASE WHEN b.typcategory = 'A' THEN b.typelem END, base.modifier,
                   CASE WHEN b.typtype = 'b' AND b.typcategory <> 'A' THEN
                   (SELECT replace(format('%I.%I', n.nspname, p.proname), '%', '%%') || CASE WHEN p.pronargs = 1 THEN '(pg_catalog.textout(%s))'
                           ELSE format('(pg_catalog.textout(%%s), %s::pg_catalog.oid, %s)', b.oid, base.modifier) END
                    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = b.typinput) END,
                   (SELECT format('%I.%I', n.nspname, p.proname) FROM pg_proc p
                    JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = t.typsend))::rowdelta.mapped_column
        FROM unnest(p_columns) WITH ORDINALITY AS m
        LEFT JOIN pg_attribute a ON a.attrelid = p_tables[m.ordinality] AND a.attname = m.name AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN LATERAL rowdelta.base_type(a.atttypid, a.atttypmod, t.typtype) AS base ON true
        LEFT JOIN pg_type b ON b.oid = base.oid
        ORDER BY m.ordinality);
    SELECT p_places[c.ordinality], c.name, c.sql, p_tables[c.ordinality] INTO v_place, v_name, v_sql, v_table
    FROM unnest(v_columns) WITH ORDINALITY AS c WHERE c.kind IS NULL ORDER BY c.ordinality LIMIT 1;
    IF FOUND THEN
        PERFORM rowdelta.fault(v_place || '.columns.' || v_name, CASE
            WHEN v_sql IS NULL THEN rowdelta.no_column(v_table, v_name)
            WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = v_table AND a.attname = v_name AND a.attgenerated <> '')
            THEN format('column "%s" is generated by the database; take it out of the mapping', v_name)
            ELSE format('column "%s" is %s, which the SQL functions do not take: leave it out, or sync by the command', v_name, v_sql) END);
    END IF;
    RETURN v_columns;
END
$$;

COMMENT ON FUNCTION rowdelta.typed(rowdelta.mapped_column[], oid[], name[], text[]) IS 'columns with their types';

-- rowdelta.part(p_bytes): a part of what a digest is made of.
CREATE FUNCTION rowdelta.part(p_bytes bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN int8send(octet_length(p_bytes)) || p_bytes;
END
$$;

COMMENT ON FUNCTION rowdelta.part(bytea) IS 'a part of what a digest is made of';

-- rowdelta.digest_of(p_relation, p_outer, p_lookups): of all that decides the rows of a relation, as the engine's.
CREATE FUNCTION rowdelta.digest_of(p_relation rowdelta.relation, p_outer bytea, p_lookups rowdelta.lookup[]) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_bytes   bytea;
    v_columns text;
    v_column  rowdelta.mapped_column;
    v_lookup  rowdelta.lookup;
    v_key     rowdelta.mapped_column;
BEGIN
    SELECT string_agg('{"name":' || to_json(c.name) || ',"source":' || c.source || ',"when_absent":"'
                      || CASE WHEN c.keeps THEN 'keep' ELSE 'empty' END || '"}', ',' ORDER BY c.ordinality)
    INTO v_columns FROM unnest(p_relation.columns) WITH ORDINALITY AS c;
    v_bytes := '\x01'::bytea || CASE WHEN p_relation.enclosing > 1 THEN p_outer ELSE ''::bytea END
        || rowdelta.part(convert_to(
            '{"name":' || to_json(p_relation.name) || ',"kind":"' || p_relation.kind || '","path":'
            || rowdelta.path_source(p_relation.path) || ',"table":'
            || rowdelta.table_source(p_relation.in_schema, p_relation.in_table)
            || ',"id":' || coalesce(to_json(p_relation.id)::text, 'null')
            || ',"parent":' || rowdelta.list_source(p_relation.parent)
            || ',"key":' || rowdelta.list_source(p_relation.key)
            || ',"unique_in":"' || CASE WHEN p_relation.everywhere THEN 'all' ELSE 'parent' END
            || '","when_absent":"' || p_relation.when_absent || '","when_null":"' || p_relation.when_null
            || '","on_duplicate":"' || p_relation.on_duplicate || '","columns":[' || v_columns || ']}', 'UTF8'))
        || rowdelta.part(convert_to(p_relation.tbl, 'UTF8'));
    FOREACH v_column IN ARRAY p_relation.columns LOOP
        v_bytes := v_bytes || rowdelta.part(convert_to(v_column.spelled, 'UTF8'))
            || CASE WHEN v_column.parts = '' THEN ''::bytea ELSE rowdelta.part(convert_to(v_column.parts, 'UTF8')) END
            || rowdelta.part(int2send(v_column.number));
        IF v_column.lookup IS NOT NULL THEN
            SELECT l.* INTO v_lookup FROM unnest(p_lookups) AS l WHERE l.name = v_column.lookup;
            v_bytes := v_bytes || rowdelta.part(convert_to(v_lookup.source, 'UTF8'))
                || rowdelta.part(convert_to(v_lookup.tbl, 'UTF8'));
            FOREACH v_key IN ARRAY v_lookup.keys LOOP
                v_bytes := v_bytes || rowdelta.part(convert_to(v_key.spelled, 'UTF8'));
            END LOOP;
        END IF;
    END LOOP;
    RETURN sha256(v_bytes);
END
$$;

COMMENT ON FUNCTION rowdelta.digest_of(rowdelta.relation, bytea, rowdelta.lookup[]) IS
    'the digest of all that decides the rows of a relation';

CREATE TYPE rowdelta.plan_of_mapping AS (
    mapping   integer,
    name      text,
    digest    bytea,
    relations rowdelta.relation[],
    lookups   rowdelta.lookup[],
    rows_max    bigint,
    percent_max numeric
);

COMMENT ON TYPE rowdelta.plan_of_mapping IS 'a mapping and its tables, as the SQL functions work with it, and how much a call may delete';

-- rowdelta.parsed(p_definition): the relations and catalogues of a mapping; nothing yet of their tables.
--
-- Raises:  RD005 the mapping has what the SQL functions do not know.
CREATE FUNCTION rowdelta.parsed(p_definition jsonb) RETURNS rowdelta.plan_of_mapping
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_plan rowdelta.plan_of_mapping;
BEGIN
    PERFORM rowdelta.known(p_definition, ARRAY['version', 'name', 'root', 'lookups', 'sync'], '');
    IF NOT p_definition ? 'version' THEN
        PERFORM rowdelta.fault('version', 'missing; add "version": 1');
    ELSIF p_definition -> 'version' <> '1' THEN
        PERFORM rowdelta.fault('version', format('%s is not known here; write "version": 1', p_definition -> 'version'));
    ELSIF p_definition ->> 'name' IS NULL THEN
        PERFORM rowdelta.fault('name', 'missing; add "name": "..."');
    ELSIF NOT p_definition ? 'root' THEN
        PERFORM rowdelta.fault('root', 'missing; describe the table that has one row a document');
    END IF;
    PERFORM rowdelta.known(coalesce(p_definition -> 'sync', '{}'), ARRAY['atomic'], 'sync');
    PERFORM rowdelta.choice(coalesce(p_definition -> 'sync', '{}'), 'atomic', ARRAY['document'], 'document', 'sync');
    PERFORM rowdelta.choice(p_definition -> 'root', 'on_absent', ARRAY['delete', 'keep'], 'delete', 'root');
    v_plan.name := p_definition ->> 'name';
    v_plan.lookups := rowdelta.lookups(p_definition);
    v_plan.relations := rowdelta.read_relation(
        '{}', p_definition -> 'root', 'root', NULL, 'keep', v_plan.lookups);
    v_plan.relations[1].name := v_plan.name;
    RETURN v_plan;
END
$$;

COMMENT ON FUNCTION rowdelta.parsed(jsonb) IS 'reads a mapping';

-- rowdelta.place_of(p_relation): where a relation stands in its mapping.
CREATE FUNCTION rowdelta.place_of(p_relation rowdelta.relation) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE p_relation.kind WHEN 'root' THEN 'root' WHEN 'child' THEN 'children.' || p_relation.name
                                ELSE 'links.' || p_relation.name END;
END
$$;

COMMENT ON FUNCTION rowdelta.place_of(rowdelta.relation) IS 'where a relation stands in its mapping';

-- rowdelta.compiled(p_definition, p_path): a mapping with its tables, found by a search path.
--
-- Raises:  RD005 a table or a column is not there, or not for the SQL functions.
CREATE FUNCTION rowdelta.compiled(p_definition jsonb, p_path name[]) RETURNS rowdelta.plan_of_mapping
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_plan  rowdelta.plan_of_mapping := rowdelta.parsed(p_definition);
    v       rowdelta.relation;
    v_look  rowdelta.lookup;
    v_all   bytea := '';
    v_place text;
    -- The columns of all tables, of which the catalog is asked at once.
    v_columns rowdelta.mapped_column[] := '{}';
    v_tables  oid[] := '{}';
    v_places  text[] := '{}';
    v_at      integer := 0;
    v_count   integer;
BEGIN
    FOR i IN 1 .. cardinality(v_plan.lookups) LOOP
        v_look := v_plan.lookups[i];
        v_place := 'lookups.' || v_look.name;
        v_look.oid := rowdelta.find_table(v_look.in_schema, v_look.in_table, p_path);
        v_look.tbl := rowdelta.table_name(v_look.oid, v_place, v_look.in_table);
        PERFORM rowdelta.unique_by(v_look.oid, v_look.key, v_place || '.key');
        IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = v_look.oid AND a.attname = v_look.id AND a.attnum > 0 AND NOT a.attisdropped) THEN
            PERFORM rowdelta.fault(v_place || '.id', rowdelta.no_column(v_look.oid, v_look.id));
        END IF;
        v_plan.lookups[i] := v_look;
        v_columns := v_columns || v_look.keys || v_look.columns;
        v_count := cardinality(v_look.keys) + cardinality(v_look.columns);
        v_tables := v_tables || array_fill(v_look.oid, ARRAY[v_count]);
        v_places := v_places || array_fill(v_place, ARRAY[v_count]);
    END LOOP;
    FOR i IN 1 .. cardinality(v_plan.relations) LOOP
        v := v_plan.relations[i];
        v_place := rowdelta.place_of(v);
        v.oid := rowdelta.find_table(v.in_schema, v.in_table, p_path);
        v.tbl := rowdelta.table_name(v.oid, v_place, v.in_table);
        v_plan.relations[i] := v;
        v_columns := v_columns || v.columns;
        v_tables := v_tables || array_fill(v.oid, ARRAY[cardinality(v.columns)]);
        v_places := v_places || array_fill(v_place, ARRAY[cardinality(v.columns)]);
    END LOOP;
    v_columns := rowdelta.typed(v_columns, v_tables, p_path, v_places);
    FOR i IN 1 .. cardinality(v_plan.lookups) LOOP
        v_look := v_plan.lookups[i];
        v_count := cardinality(v_look.keys);
        v_look.keys := v_columns[v_at + 1 : v_at + v_count];
        v_at := v_at + v_count;
        v_count := cardinality(v_look.columns);
        v_look.columns := v_columns[v_at + 1 : v_at + v_count];
        v_at := v_at + v_count;
        v_plan.lookups[i] := v_look;
    END LOOP;
    FOR i IN 1 .. cardinality(v_plan.relations) LOOP
        v := v_plan.relations[i];
        v_place := rowdelta.place_of(v);
        v_count := cardinality(v.columns);
        v.columns := v_columns[v_at + 1 : v_at + v_count];
        v_at := v_at + v_count;
        IF array_position(v.key_at, NULL) IS NOT NULL THEN
            PERFORM rowdelta.fault(v_place || '.key', format('column "%s" is not among its columns; add it to columns',
                                                             v.key[array_position(v.key_at, NULL)]));
        END IF;
        IF v.everywhere THEN
            PERFORM rowdelta.unique_by(v.oid, v.key, v_place || '.key');
        END IF;
        SELECT array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY p.at) INTO v.parent_types
        FROM unnest(v.parent) WITH ORDINALITY AS p (name, at)
        JOIN pg_attribute a ON a.attrelid = v.oid AND a.attname = p.name AND NOT a.attisdropped;
        IF coalesce(cardinality(v.parent_types), 0) <> cardinality(v.parent) THEN
            PERFORM rowdelta.fault(v_place || '.parent', (
                SELECT rowdelta.no_column(v.oid, p.name) FROM unnest(v.parent) AS p (name)
                WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attname = p.name AND NOT a.attisdropped)
                LIMIT 1));
        END IF;
        SELECT format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attidentity <> '' THEN format('pg_catalog.nextval(%L::regclass)', pg_get_serial_sequence(v.tbl, v.id))
                    ELSE pg_get_expr(d.adbin, d.adrelid) END
        INTO v.id_type, v.id_default
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = v.oid AND a.attname = v.id AND NOT a.attisdropped;
        IF v.id IS NOT NULL AND v.id_type IS NULL THEN
            PERFORM rowdelta.fault(v_place || '.id', rowdelta.no_column(v.oid, v.id));
        END IF;
        IF v.id = ANY (SELECT c.name FROM unnest(v.columns) AS c) THEN
            v.id_default := NULL;
        ELSIF v.id IS NOT NULL AND v.id_default IS NULL THEN
            PERFORM rowdelta.fault(v_place || '.id', format(
                'column "%s" has no default, and the mapping does not fill it: ALTER TABLE %s ALTER COLUMN %I ' || CASE
                    WHEN v.id_type NOT IN ('smallint', 'integer', 'bigint', 'uuid') THEN 'SET DEFAULT ..., or map it'
                    WHEN v.id_type = 'uuid' THEN 'SET DEFAULT gen_random_uuid()'
                    WHEN (SELECT a.attnotnull FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attname = v.id) THEN 'ADD GENERATED BY DEFAULT AS IDENTITY'
                    ELSE 'SET NOT NULL, ALTER COLUMN %3$I ADD GENERATED BY DEFAULT AS IDENTITY' END, v.id, v.tbl, v.id));
        END IF;
        PERFORM rowdelta.check_relation(v_plan.relations, v, v_place);
        v.digest := rowdelta.digest_of(
            v, CASE WHEN v.enclosing IS NOT NULL THEN v_plan.relations[v.enclosing].digest END, v_plan.lookups);
        v_all := v_all || v.digest;
        v_plan.relations[i] := v;
    END LOOP;
    v_plan.digest := sha256(v_all || convert_to(
        '{"atomic":"document","mark_hash":null,"mark_time":null,"on_absent":"'
        || coalesce(p_definition #>> '{root,on_absent}', 'delete') || '"}', 'UTF8'));
    RETURN v_plan;
END
$$;

COMMENT ON FUNCTION rowdelta.compiled(jsonb, name[]) IS 'a mapping with its tables';

-- rowdelta.check_relation(p_relations, p_relation, p_place): fails where a relation takes another one's name or table, or where its
-- rows do not refer to those around them.
CREATE FUNCTION rowdelta.check_relation(p_relations rowdelta.relation[], p_relation rowdelta.relation, p_place text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_relation;
    v_outer rowdelta.relation := p_relations[p_relation.enclosing];
    -- What clashes with it, which column is filled from the parent, and what rows around it are referred to by.
    v_other  rowdelta.relation;
    v_filled text;
    v_wanted text[];
BEGIN
    v_other := (SELECT l FROM unnest(p_relations) AS l WHERE l.ix < v.ix AND (l.name = v.name OR l.oid = v.oid) ORDER BY l.ix LIMIT 1);
    v_filled := (SELECT c.name FROM unnest(v.columns) AS c WHERE c.name = ANY (v.parent) LIMIT 1);
    v_wanted := CASE WHEN v_outer.ix IS NULL THEN '{}' WHEN v_outer.id IS NOT NULL THEN ARRAY[v_outer.id] ELSE v_outer.key END;
    IF v_other.name = v.name THEN
        PERFORM rowdelta.fault(p_place || '.name', format('another relation is named "%s"; give this one another name, and path', v.name));
    ELSIF v_other.oid = v.oid THEN
        PERFORM rowdelta.fault(p_place || '.table', format('%s is fed by %s already; every relation has a table of its own', v.tbl,
                                                           rowdelta.place_of(v_other)));
    ELSIF EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = v.oid) THEN
        PERFORM rowdelta.fault(p_place || '.table', (
            SELECT format('%s has rules (%s), which would rewrite what is sent; replace them by triggers: %s', v.tbl,
                          string_agg(quote_ident(r.rulename), ', ' ORDER BY r.rulename),
                          string_agg(format('DROP RULE %I ON %s', r.rulename, v.tbl), '; ' ORDER BY r.rulename))
            FROM pg_rewrite r WHERE r.ev_class = v.oid));
    ELSIF v_filled IS NOT NULL THEN
        PERFORM rowdelta.fault(p_place || CASE WHEN v.kind = 'link' AND v_filled = v.key[1] THEN '.target' ELSE '.columns.' || v_filled END,
                               format('column "%s" refers to the parent and is filled from it; leave it out', v_filled));
    ELSIF v_outer.ix IS NOT NULL AND v_outer.id IS NULL AND NOT v_outer.everywhere THEN
        PERFORM rowdelta.fault(p_place || '.parent', format('rows of %s can be referred to by an id only; name it there',
                                                            rowdelta.place_of(v_outer)));
    ELSIF cardinality(v.parent) <> cardinality(v_wanted) THEN
        PERFORM rowdelta.fault(p_place || '.parent', format(
            '%s, but rows of %s are referred to by %s; name %s', CASE cardinality(v.parent) WHEN 1 THEN '1 column'
                ELSE cardinality(v.parent) || ' columns' END, rowdelta.place_of(v_outer), array_to_string(v_wanted, ', '),
            CASE cardinality(v_wanted) WHEN 1 THEN '1 column' ELSE cardinality(v_wanted) || ' columns' END));
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.check_relation(rowdelta.relation[], rowdelta.relation, text) IS
    'fails where a relation clashes with others, or with that around it';

-- rowdelta.unique_by(p_table, p_key, p_place): fails where no unique index is over exactly these columns.
CREATE FUNCTION rowdelta.unique_by(p_table oid, p_key text[], p_place text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_names text;
BEGIN
    IF p_key IS NULL OR NOT EXISTS (
        SELECT FROM pg_index i
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = p_table
            AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1])) AS names) AS c
        WHERE i.indrelid = p_table AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND c.names <@ p_key AND c.names @> p_key) THEN
        SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.at) INTO v_names FROM unnest(p_key) WITH ORDINALITY AS k (name, at);
        PERFORM rowdelta.fault(p_place, CASE WHEN p_key IS NULL THEN 'missing; name the columns that tell rows apart'
            ELSE format('the key (%1$s) is not unique in %2$s: CREATE UNIQUE INDEX ON %2$s (%1$s)', v_names, p_table::regclass) END);
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.unique_by(oid, text[], text) IS 'fails where columns are not unique';

-- rowdelta.table_name(p_oid, p_place, p_table): the quoted name of a table, with its schema; that it is there is checked.
CREATE FUNCTION rowdelta.table_name(p_oid oid, p_place text, p_table text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce((SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
                         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_oid),
                        rowdelta.fault(p_place || '.table', format(
                            'table %s does not exist, or is not on the search path; create it, or name its schema', p_table))));
END
$$;

COMMENT ON FUNCTION rowdelta.table_name(oid, text, text) IS 'the quoted name of a table';

-- rowdelta.register(mapping, path)
--
-- Enters a mapping, or what it has become, and gives its id. It is checked against the tables, which are found by the
-- caller's search path where the mapping gives no schema. What is recorded of its documents stays: what a change of the
-- mapping leaves unknown is compared, and written where it differs.
--
-- Locks:   the mapping's row, if it is new or changed.
-- Raises:  RD005 the mapping has what the SQL functions do not know, or its tables are not there.
-- Example: SELECT rowdelta.register('{"version": 1, "name": "shop", "root": {"table": "orders", "key": "number",
--                                     "columns": {"number": "number", "customer": "customer.name"}}}');
CREATE FUNCTION rowdelta.register(mapping jsonb, path name[] DEFAULT pg_catalog.current_schemas(false)) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan rowdelta.plan_of_mapping := rowdelta.compiled(mapping, path);
BEGIN
    RETURN rowdelta.register(v_plan.name, mapping, v_plan.digest);
END
$$;

COMMENT ON FUNCTION rowdelta.register(jsonb, name[]) IS 'enters or renews a mapping; gives its id';

-- rowdelta.mappings(): the mappings that are known, and how many documents are recorded under each.
CREATE FUNCTION rowdelta.mappings()
    RETURNS TABLE (name text, documents bigint, unsettled bigint, definition jsonb, lease_holder text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT m.name, c.documents, c.unsettled, m.definition, CASE WHEN m.lease_until > clock_timestamp() THEN m.lease_holder END
    FROM rowdelta.mapping m CROSS JOIN LATERAL rowdelta.counted(m.id) c ORDER BY m.name
$$;

COMMENT ON FUNCTION rowdelta.mappings() IS 'the mappings that are known';

-- rowdelta.plan_for(p_mapping, p_path, p_rows_max, p_percent_max): a mapping that was entered, with its tables, and how much a
-- call may delete.
-- Raises:  RD001 unknown mapping; RD005 it is not for the SQL functions, or its tables are not there.
CREATE FUNCTION rowdelta.plan_for(
    p_mapping text, p_path name[], p_rows_max bigint DEFAULT 10000, p_percent_max numeric DEFAULT 20
) RETURNS rowdelta.plan_of_mapping
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_plan       rowdelta.plan_of_mapping;
    v_id         integer;
    v_definition jsonb;
BEGIN
    SELECT m.id, m.definition INTO v_id, v_definition FROM rowdelta.mapping m WHERE m.name = p_mapping;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no mapping % is registered: rowdelta.register(...) enters one, rowdelta.mappings() lists them', to_json(p_mapping)
            USING ERRCODE = 'RD001';
    END IF;
    v_plan := rowdelta.compiled(v_definition, p_path);
    v_plan.mapping := v_id;
    v_plan.rows_max := p_rows_max;
    v_plan.percent_max := p_percent_max;
    RETURN v_plan;
END
$$;

COMMENT ON FUNCTION rowdelta.plan_for(text, name[], bigint, numeric) IS 'a mapping that was entered, with its tables';

-- ---- From documents to rows --------------------------------------------------------------------

CREATE TYPE rowdelta.source_row AS (
    relation    integer,
    document    integer,
    number      integer,
    parent      integer,
    item        jsonb,
    cells       text[],
    forms       bytea[],
    kept        integer[],
    key         bytea,
    fingerprint bytea,
    skipped     integer,
    silent      boolean
);

COMMENT ON TYPE rowdelta.source_row IS
    'a row that a document asks for (silent: a list about which it says nothing); its parent by number in the relation around';

-- rowdelta.found(p_value): a value for messages: itself if it is short, else its kind.
CREATE FUNCTION rowdelta.found(p_value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE jsonb_typeof(p_value) WHEN 'array' THEN 'a list' WHEN 'object' THEN 'an object'
        ELSE CASE WHEN char_length(p_value #>> '{}') > 40 THEN 'a ' || jsonb_typeof(p_value) ELSE p_value::text END END;
END
$$;

COMMENT ON FUNCTION rowdelta.found(jsonb) IS 'a value for messages';

-- Of the functions that follow p_place is how messages begin; it is a constant of the statement that calls them.

-- rowdelta.find(p_item, p_fields, p_place): what a path finds below an item; NULL: it is absent.
-- Raises:  RD006 something on the way is no object.
CREATE FUNCTION rowdelta.find(p_item jsonb, p_fields text[], p_place text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_item jsonb := p_item;
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY p_fields LOOP
        IF jsonb_typeof(v_item) = 'object' THEN
            v_item := v_item -> v_name;
        ELSIF v_item <> 'null' THEN
            PERFORM rowdelta.refuse(format('%sexpected an object that holds %s, found %s', p_place, to_json(v_name),
                                           rowdelta.found(v_item)));
        END IF;
        EXIT WHEN v_item IS NULL;
    END LOOP;
    RETURN v_item;
END
$$;

COMMENT ON FUNCTION rowdelta.find(jsonb, text[], text) IS 'what a path finds below an item';

-- rowdelta.scalar(p_value, p_expected): the text of a scalar. null: NULL. p_expected: what there should be, for the message.
-- Raises:  RD006 a list or an object.
CREATE FUNCTION rowdelta.scalar(p_value jsonb, p_expected text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(p_value) IN ('array', 'object') THEN
        PERFORM rowdelta.refuse(format('%s, found %s', p_expected, rowdelta.found(p_value)));
    END IF;
    RETURN p_value #>> '{}';
END
$$;

COMMENT ON FUNCTION rowdelta.scalar(jsonb, text) IS 'the text of a scalar';

-- rowdelta.digits(p_value, p_whole, p_place): the text of a number, or of a string that may hold one; a whole number without
-- decimals.
-- Raises:  RD006 neither, or a fraction where there must be none.
CREATE FUNCTION rowdelta.digits(p_value jsonb, p_whole boolean, p_place text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_text text := p_value #>> '{}';
BEGIN
    IF jsonb_typeof(p_value) NOT IN ('number', 'string', 'null') THEN
        PERFORM rowdelta.refuse(format('%sexpected a number, found %s', p_place, rowdelta.found(p_value)));
    END IF;
    IF p_whole AND jsonb_typeof(p_value) = 'number' AND strpos(v_text, '.') > 0 THEN
        IF v_text::numeric <> trunc(v_text::numeric) THEN
            PERFORM rowdelta.refuse(format('%sexpected an integer, found %s', p_place, v_text));
        END IF;
        v_text := trunc(v_text::numeric)::text;
    END IF;
    RETURN v_text;
END
$$;

COMMENT ON FUNCTION rowdelta.digits(jsonb, boolean, text) IS 'the text of a number';

-- rowdelta.words(p_value, p_length, p_place): text; numbers in their shortest plain spelling.
-- Raises:  RD006 a list or an object, or longer than so many characters.
CREATE FUNCTION rowdelta.words(p_value jsonb, p_length integer, p_place text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_text text := CASE WHEN jsonb_typeof(p_value) = 'number' THEN trim_scale((p_value #>> '{}')::numeric)::text
                        ELSE rowdelta.scalar(p_value, p_place || 'expected text') END;
BEGIN
    IF char_length(v_text) > p_length THEN
        PERFORM rowdelta.refuse(format('%s%s characters, longer than varchar(%s)', p_place, char_length(v_text), p_length));
    END IF;
    RETURN v_text;
END
$$;

COMMENT ON FUNCTION rowdelta.words(jsonb, integer, text) IS 'the text of a string, a number or a boolean';

-- rowdelta.moment(p_value, p_offset, p_place): a date or a timestamp in ISO 8601, and only there.
-- Raises:  RD006 it is not, or has no offset from UTC where one must be.
CREATE FUNCTION rowdelta.moment(p_value jsonb, p_offset boolean, p_place text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_text text := btrim(p_value #>> '{}', E' \t\n\r\x0b\x0c');
BEGIN
    IF p_value = 'null' OR (jsonb_typeof(p_value) = 'string' AND v_text ~* '^-?infinity$') THEN
        RETURN v_text;
    END IF;
    IF jsonb_typeof(p_value) <> 'string' OR v_text !~* ('^\d{4,7}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?'
            || '( *(Z|[+-]\d\d(:?\d\d|:\d\d:\d\d)?))?)?( +BC)?$') THEN
        PERFORM rowdelta.refuse(format('%sexpected %sa timestamp such as 2024-05-31T10:00:00Z, found %s', p_place,
                                       CASE WHEN p_offset THEN '' ELSE 'a date or ' END, rowdelta.found(p_value)));
    END IF;
    IF p_offset AND v_text !~* '(Z|:\d\d(\.\d+)? *[+-]\d\d(:?\d\d|:\d\d:\d\d)?)( +BC)?$' THEN
        PERFORM rowdelta.refuse(format('%s%s has no time zone; declare one with zone', p_place, to_json(v_text)));
    END IF;
    RETURN v_text;
END
$$;

COMMENT ON FUNCTION rowdelta.moment(jsonb, boolean, text) IS 'a date or a timestamp in ISO 8601';

-- rowdelta.instant(p_value, p_zone, p_place): a timestamp, read in a time zone where it has no offset of its own.
CREATE FUNCTION rowdelta.instant(p_value jsonb, p_zone text, p_place text) RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT CASE WHEN rowdelta.moment(p_value, false, p_place) ~* '(Z|:\d\d(\.\d+)? *[+-]\d\d(:?\d\d|:\d\d:\d\d)?)( +BC)?$|infinity'
                THEN rowdelta.moment(p_value, false, p_place)::timestamptz
                ELSE rowdelta.moment(p_value, false, p_place)::timestamp AT TIME ZONE p_zone END
$$;

COMMENT ON FUNCTION rowdelta.instant(jsonb, text, text) IS 'a timestamp, read in a time zone where it has no offset';

-- rowdelta.jsonb_form(p_value): the comparison form of a jsonb: numbers without trailing zero decimals.
CREATE FUNCTION rowdelta.jsonb_form(p_value jsonb) RETURNS bytea
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT '\x01'::bytea || convert_to(CASE WHEN p_value::text ~ '\.\d*0' THEN
        regexp_replace(p_value::text, '("(?:[^"\\]|\\.)*")|\.0+(?!\d)|(\.\d*[1-9])0+(?!\d)', '\1\2', 'g')
        ELSE p_value::text END, 'UTF8')
$$;

COMMENT ON FUNCTION rowdelta.jsonb_form(jsonb) IS 'the comparison form of a jsonb';

-- rowdelta.value_sql(p_column, p_json, p_place): SQL that makes a column's value of a jsonb expression. p_place: how messages begin.
CREATE FUNCTION rowdelta.value_sql(p_column rowdelta.mapped_column, p_json text, p_place text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    c         rowdelta.mapped_column := p_column;
    v_element rowdelta.mapped_column;
BEGIN
    IF c.kind = 'array' THEN
        v_element.kind := rowdelta.kind_of(c.element, c.modifier);
        v_element.sql := format_type(c.element, c.modifier);
        v_element.length := CASE WHEN c.element = 1043 AND c.modifier >= 4 THEN c.modifier - 4 END;
        RETURN format('CASE WHEN jsonb_typeof(%1$s) = ''array'' THEN ARRAY(SELECT %2$s FROM jsonb_array_elements(%1$s) '
                      'WITH ORDINALITY AS a (v, at) ORDER BY a.at) ELSE rowdelta.scalar(%1$s, %4$L)::%3$s END',
                      p_json, rowdelta.value_sql(v_element, 'a.v', p_place), c.sql, p_place || 'expected ' || c.sql);
    END IF;
    RETURN CASE c.kind
        WHEN 'integer' THEN format('rowdelta.digits(%s, true, %L)::%s', p_json, p_place, c.sql)
        WHEN 'float' THEN format('rowdelta.digits(%s, false, %L)::%s', p_json, p_place, c.sql)
        WHEN 'numeric' THEN format('rowdelta.digits(%s, false, %L)::%s', p_json, p_place, c.sql)
        WHEN 'decimal' THEN format('rowdelta.digits(%s, false, %L)::%s', p_json, p_place, c.sql)
        -- Strings, which most are, without a call.
        WHEN 'text' THEN format('CASE WHEN jsonb_typeof(%1$s) = ''string''%2$s THEN %1$s #>> ''{}'' '
                                'ELSE rowdelta.words(%1$s, %3$s, %5$L) END::%4$s', p_json,
                                format(' AND char_length(%s #>> ''{}'') <= ' || c.length, p_json),
                                coalesce(c.length::text, 'NULL'), c.sql, p_place)
        WHEN 'clock' THEN format('rowdelta.moment(%s, false, %L)::%s', p_json, p_place, c.sql)
        WHEN 'instant' THEN CASE WHEN c.zone IS NULL THEN format('rowdelta.moment(%s, true, %L)::%s', p_json, p_place, c.sql)
                                 ELSE format('rowdelta.instant(%s, %L, %L)::%s', p_json, c.zone, p_place, c.sql) END
        WHEN 'jsonb' THEN format('nullif(%s, ''null''::jsonb)::%s', p_json, c.sql)
        ELSE format(coalesce(c.input, '%s') || '::%s', format('rowdelta.scalar(%s, %L)', p_json,
                            p_place || 'expected ' || CASE c.kind WHEN 'boolean' THEN 'a boolean' ELSE c.sql END),
                    c.sql) END;
END
$$;

COMMENT ON FUNCTION rowdelta.value_sql(rowdelta.mapped_column, text, text) IS 'SQL that makes a column''s value of JSON';

-- rowdelta.form_sql(p_column, p_value): SQL of the comparison form of a column's value.
CREATE FUNCTION rowdelta.form_sql(p_column rowdelta.mapped_column, p_value text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN CASE p_column.kind WHEN 'decimal' THEN format('numeric_send(trim_scale(%s))', p_value)
                              WHEN 'jsonb' THEN format('rowdelta.jsonb_form(%s)', p_value)
                              ELSE format('%s(%s)', p_column.send, p_value) END;
END
$$;

COMMENT ON FUNCTION rowdelta.form_sql(rowdelta.mapped_column, text) IS 'SQL of the comparison form of a value';

-- rowdelta.cell_sql(p_form): SQL of a cell of a tuple, of an expression that is its comparison form.
CREATE FUNCTION rowdelta.cell_sql(p_form text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN format('CASE WHEN %1$s IS NULL THEN ''\xffffffff''::bytea ELSE int4send(octet_length(%1$s)) || %1$s END', p_form);
END
$$;

COMMENT ON FUNCTION rowdelta.cell_sql(text) IS 'SQL of a cell of a tuple';

-- rowdelta.find_sql(p_path, p_place): SQL of what a path finds, seen from an item `e.item`; `e.up1` is the one around it, and so on.
CREATE FUNCTION rowdelta.find_sql(p_path jsonb, p_place text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE cardinality(f.fields) WHEN 0 THEN 'e.' || f.item
                    -- A field of an object without a call.
                    WHEN 1 THEN format('CASE jsonb_typeof(e.%1$s) WHEN ''object'' THEN e.%1$s -> %2$L ELSE rowdelta.find(e.%1$s, %3$L::text[], %4$L) END',
                                       f.item, f.fields[1], f.fields, p_place)
                    ELSE format('rowdelta.find(e.%s, %L::text[], %L)', f.item, f.fields, p_place) END
        FROM (SELECT coalesce('up' || nullif(count(*) FILTER (WHERE s.part = '^'), 0), 'item') AS item,
                     coalesce(array_agg(substr(s.part, 2) ORDER BY s.at) FILTER (WHERE s.part <> '^'), '{}') AS fields
              FROM jsonb_array_elements_text(p_path) WITH ORDINALITY AS s (part, at)) AS f);
END
$$;

COMMENT ON FUNCTION rowdelta.find_sql(jsonb, text) IS 'SQL of what a path finds';

-- rowdelta.found_sql(p_column): SQL of what a column's paths find: the first that is not null; else null where any is there.
CREATE FUNCTION rowdelta.found_sql(p_column rowdelta.mapped_column) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN count(*) = 1 THEN min(f.found) ELSE
                   'coalesce(' || string_agg(format('nullif(%s, ''null'')', f.found), ', ' ORDER BY f.at) || ', '
                   || string_agg(f.found, ', ' ORDER BY f.at) || ')' END
        FROM (SELECT rowdelta.find_sql(p.path, p_column.places[1]) AS found, p.at
              FROM jsonb_array_elements(p_column.paths) WITH ORDINALITY AS p (path, at)) AS f);
END
$$;

COMMENT ON FUNCTION rowdelta.found_sql(rowdelta.mapped_column) IS 'SQL of what a column''s paths find';

-- rowdelta.items_sql(p_relations, p_ix): SQL of the items of a relation: document, parent, at, item, silent, up1, ....
--
-- $1: the source rows of the relations before it; $2, $3: numbers of documents, and these.
CREATE FUNCTION rowdelta.items_sql(p_relations rowdelta.relation[], p_ix integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_relations[p_ix];
    v_outer integer := v.enclosing;
    v_ups   text := '';
    v_joins text := '';
    v_level integer := 1;
    v_path  text[];
    v_place text;
BEGIN
    IF v.kind = 'root' THEN
        RETURN 'SELECT d.document, NULL::integer AS parent, d.document AS at, CASE WHEN jsonb_typeof(d.item) = ''object'' '
            'THEN d.item ELSE rowdelta.refuse(''expected an object, found '' || rowdelta.found(d.item))::jsonb END AS item, false AS silent '
            'FROM unnest($2::integer[], $3::jsonb[]) AS d (document, item)';
    END IF;
    WHILE v_outer IS NOT NULL LOOP
        v_ups := v_ups || format(', p%1$s.item AS up%1$s', v_level);
        EXIT WHEN p_relations[v_outer].enclosing IS NULL;
        v_outer := p_relations[v_outer].enclosing;
        v_level := v_level + 1;
        v_joins := v_joins || format(' JOIN unnest($1) AS p%1$s ON p%1$s.relation = %2$s AND p%1$s.number = p%3$s.parent',
                                     v_level, v_outer, v_level - 1);
    END LOOP;
    v_path := ARRAY(SELECT substr(s.part, 2) FROM jsonb_array_elements_text(v.path) WITH ORDINALITY AS s (part, at) ORDER BY s.at);
    -- Mostly the relation is named after its list.
    v_place := CASE WHEN v_path IN (ARRAY[v.name], '{}') THEN '' ELSE array_to_string(v_path, '.') || ': ' END;
    RETURN format(
        'SELECT p1.document, p1.number AS parent, i.at, i.item, i.silent%1$s FROM unnest($1) AS p1%2$s '
        'CROSS JOIN LATERAL (SELECT rowdelta.find(p1.item, %3$L::text[], %6$L) AS list OFFSET 0) AS l '
        'CROSS JOIN LATERAL (SELECT a.item, a.at, false AS silent FROM jsonb_array_elements(CASE WHEN l.list IS NULL '
        'OR l.list = ''null'' THEN ''[]'' WHEN jsonb_typeof(l.list) = ''array'' THEN l.list ELSE rowdelta.refuse('
        '%6$L || ''expected a list, found '' || rowdelta.found(l.list))::jsonb END) WITH ORDINALITY AS a (item, at)%4$s) AS i '
        'WHERE p1.relation = %5$s AND NOT p1.silent',
        v_ups, v_joins, v_path,
        CASE WHEN v.when_absent = 'keep' THEN ' UNION ALL SELECT NULL, 0, true WHERE l.list IS NULL' ELSE '' END
        || CASE v.when_null WHEN 'keep' THEN ' UNION ALL SELECT NULL, 0, true WHERE l.list = ''null'''
                            WHEN 'error' THEN format(
                                ' UNION ALL SELECT rowdelta.refuse(%L)::jsonb, 0, true WHERE l.list = ''null''',
                                v_place || 'the list is null, and when_null = "error"') ELSE '' END,
        v.enclosing, v_place);
END
$$;

COMMENT ON FUNCTION rowdelta.items_sql(rowdelta.relation[], integer) IS 'SQL of the items of a relation';

-- rowdelta.keyed_sql(p_plan, p_ix): SQL of the items of a relation with the keys of the catalogue rows to which they refer:
-- k<column>_<n>; and v<column>, what the path of any other column finds.
--
-- Where of several items with one key the first or last counts, the others are left out: what they hold besides is not looked at.
CREATE FUNCTION rowdelta.keyed_sql(p_plan rowdelta.plan_of_mapping, p_ix integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v        rowdelta.relation := p_plan.relations[p_ix];
    c        rowdelta.mapped_column;
    v_lookup rowdelta.lookup;
    v_found  text := '';
    v_typed  text := '';
    v_chosen text := '';
    v_keys   text := '';
    v_item   text;
    v_some   boolean := v.kind <> 'root' AND v.key IS NOT NULL AND v.on_duplicate <> 'error';
BEGIN
    FOR i IN 1 .. cardinality(v.columns) LOOP
        c := v.columns[i];
        IF c.lookup IS NULL THEN
            IF v_some AND i = ANY (v.key_at) THEN
                v_chosen := v_chosen || format(', %s AS i%s', rowdelta.value_sql(c, 'j.v' || i, c.places[1]), i);
                v_keys := v_keys || ', j.i' || i;
            END IF;
            v_found := v_found || format(', %s AS v%s', rowdelta.found_sql(c), i);
            CONTINUE;
        END IF;
        v_lookup := (SELECT l FROM unnest(p_plan.lookups) AS l WHERE l.name = c.lookup);
        FOR n IN 1 .. cardinality(v_lookup.keys) LOOP
            v_found := v_found || format(', %s AS j%s_%s', rowdelta.find_sql(c.paths -> n - 1, c.places[n]), i, n);
            v_item := format(', %s AS k%s_%s', rowdelta.value_sql(v_lookup.keys[n], format('j.j%s_%s', i, n), c.places[n]), i, n);
            IF v_some AND i = ANY (v.key_at) THEN
                v_chosen := v_chosen || v_item;
                v_keys := v_keys || format(', j.k%s_%s', i, n);
            ELSE
                v_typed := v_typed || v_item;
            END IF;
        END LOOP;
    END LOOP;
    v_item := format('SELECT e.*%s FROM (%s) AS e OFFSET 0', v_found, rowdelta.items_sql(p_plan.relations, p_ix));
    IF v_some THEN
        v_item := format('SELECT * FROM (SELECT j.*, row_number() OVER (PARTITION BY j.document, j.parent, j.silent%s ORDER BY j.at%s) AS place '
                         'FROM (SELECT j.*%s FROM (%s) AS j OFFSET 0) AS j) AS j WHERE j.place = 1 OFFSET 0',
                         v_keys, CASE v.on_duplicate WHEN 'last' THEN ' DESC' ELSE '' END, v_chosen, v_item);
    END IF;
    RETURN format('SELECT j.*%s FROM (%s) AS j', v_typed, v_item);
END
$$;

COMMENT ON FUNCTION rowdelta.keyed_sql(rowdelta.plan_of_mapping, integer) IS
    'SQL of the items of a relation with the keys of their catalogue rows';

-- rowdelta.met_sql(p_lookup, p_column, p_row, p_found): SQL that is true of the row of a catalogue, `p_found`, to which a
-- column of an item, `p_row`, refers.
CREATE FUNCTION rowdelta.met_sql(p_lookup rowdelta.lookup, p_column integer, p_row text, p_found text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(format(CASE WHEN k.name = ANY (p_lookup.nullable) THEN '%s.%I IS NOT DISTINCT FROM %s.k%s_%s'
                                      ELSE '%s.%I = %s.k%s_%s' END, p_found, k.name, p_row, p_column, k.at), ' AND ' ORDER BY k.at)
        FROM unnest(p_lookup.key) WITH ORDINALITY AS k (name, at));
END
$$;

COMMENT ON FUNCTION rowdelta.met_sql(rowdelta.lookup, integer, text, text) IS 'SQL of which catalogue row is meant';

-- rowdelta.nulls_sql(p_lookup, p_column, p_row, p_all): SQL of whether parts of the key of a catalogue row are null:
-- all of it, or any part of it that may not be.
CREATE FUNCTION rowdelta.nulls_sql(p_lookup rowdelta.lookup, p_column integer, p_row text, p_all boolean) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT '(' || coalesce(string_agg(format('%s.k%s_%s IS NULL', p_row, p_column, k.at),
                                          CASE WHEN p_all THEN ' AND ' ELSE ' OR ' END ORDER BY k.at), 'false') || ')'
        FROM unnest(p_lookup.key) WITH ORDINALITY AS k (name, at) WHERE p_all OR k.name <> ALL (p_lookup.nullable));
END
$$;

COMMENT ON FUNCTION rowdelta.nulls_sql(rowdelta.lookup, integer, text, boolean) IS 'SQL of whether the key of a catalogue row is null';

-- rowdelta.catalogue_sql(p_plan, p_ix, p_column): SQL that inserts the catalogue rows that are missing to which a column of a
-- relation refers, in the order of their keys.
CREATE FUNCTION rowdelta.catalogue_sql(p_plan rowdelta.plan_of_mapping, p_ix integer, p_column integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_lookup rowdelta.lookup;
    v_names  text[];
    v_values text[];
    v_keys   text;
    v_target rowdelta.lookup;
    v_counts text := '';
    c        rowdelta.mapped_column;
BEGIN
    v_lookup := (SELECT l FROM unnest(p_plan.lookups) AS l WHERE l.name = p_plan.relations[p_ix].columns[p_column].lookup);
    v_names := v_lookup.key;
    v_values := ARRAY(SELECT format('e.k%s_%s', p_column, n) FROM generate_series(1, cardinality(v_lookup.key)) AS n);
    v_keys := array_to_string(v_values, ', ');
    FOR i IN 1 .. cardinality(v_lookup.columns) LOOP
        c := v_lookup.columns[i];
        v_names := v_names || c.name;
        v_values := v_values
            || rowdelta.value_sql(c, rowdelta.find_sql(c.paths -> 0, c.places[1]), c.places[1]);
    END LOOP;
    -- A link whose target is skipped refers to nothing else.
    IF p_plan.relations[p_ix].kind = 'link' AND p_column > 1 THEN
        v_target := (SELECT l FROM unnest(p_plan.lookups) AS l WHERE l.name = p_plan.relations[p_ix].columns[1].lookup);
        v_counts := format(' AND EXISTS (SELECT FROM %s AS t WHERE %s)', v_target.tbl, rowdelta.met_sql(v_target, 1, 'e', 't'));
    END IF;
    RETURN format('INSERT INTO %1$s (%2$s) SELECT DISTINCT ON (%3$s) %4$s FROM (%5$s) AS e WHERE NOT e.silent AND NOT %6$s AND NOT %7$s%9$s '
                  'AND NOT EXISTS (SELECT FROM %1$s AS t WHERE %8$s) ORDER BY %3$s, e.document, e.parent, e.at ON CONFLICT DO NOTHING',
                  v_lookup.tbl,
                  (SELECT string_agg(quote_ident(n.name), ', ' ORDER BY n.at) FROM unnest(v_names) WITH ORDINALITY AS n (name, at)),
                  v_keys, array_to_string(v_values, ', '), rowdelta.keyed_sql(p_plan, p_ix),
                  rowdelta.nulls_sql(v_lookup, p_column, 'e', true), rowdelta.nulls_sql(v_lookup, p_column, 'e', false),
                  rowdelta.met_sql(v_lookup, p_column, 'e', 't'), v_counts);
END
$$;

COMMENT ON FUNCTION rowdelta.catalogue_sql(rowdelta.plan_of_mapping, integer, integer) IS
    'SQL that inserts the catalogue rows that are missing';

-- rowdelta.incomplete_sql(p_lookup, p_column, p_at): SQL of the message that parts of the key of a catalogue row are null: which.
CREATE FUNCTION rowdelta.incomplete_sql(p_lookup rowdelta.lookup, p_column rowdelta.mapped_column, p_at integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format('concat_ws('', '', %s) || %L',
                      string_agg(format('CASE WHEN k.k%s_%s IS NULL THEN %L END', p_at, k.at,
                                        coalesce(nullif(left(p_column.places[k.at], -2), ''), k.name)), ', ' ORDER BY k.at),
                      format(', part of the key of %s, is null: give it, or say nullable = true of it', to_json(p_lookup.name)))
        FROM unnest(p_lookup.key) WITH ORDINALITY AS k (name, at) WHERE k.name <> ALL (p_lookup.nullable));
END
$$;

COMMENT ON FUNCTION rowdelta.incomplete_sql(rowdelta.lookup, rowdelta.mapped_column, integer) IS
    'SQL of the message that the key of a catalogue row is incomplete';

-- rowdelta.unknown_sql(p_lookup, p_column, p_at): SQL of the message that a catalogue lacks a row: which.
CREATE FUNCTION rowdelta.unknown_sql(p_lookup rowdelta.lookup, p_column rowdelta.mapped_column, p_at integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format(CASE count(*) WHEN 1 THEN '%L || %s || %L' ELSE '%L || ''('' || concat_ws('', '', %s) || '')'' || %L' END,
                      (SELECT CASE WHEN bool_and(p.place <> '') THEN string_agg(left(p.place, -2), ', ' ORDER BY p.at) || ': ' ELSE '' END
                       FROM unnest(p_column.places) WITH ORDINALITY AS p (place, at)),
                      string_agg(format('coalesce(rowdelta.found(to_jsonb(k.k%s_%s)), ''null'')', p_at, k.at), ', ' ORDER BY k.at),
                      format(' is not in the catalogue %s', to_json(p_lookup.name)) || CASE p_lookup.missing
                          -- By a trigger, say, or a policy.
                          WHEN 'insert' THEN ': it was inserted, and refused or hidden by its table'
                          ELSE ': add it, or say missing = "insert" or "skip"' END)
        FROM unnest(p_lookup.key) WITH ORDINALITY AS k (name, at));
END
$$;

COMMENT ON FUNCTION rowdelta.unknown_sql(rowdelta.lookup, rowdelta.mapped_column, integer) IS
    'SQL of the message that a catalogue lacks a row';

-- rowdelta.keyless_sql(p_relation, p_at): SQL of the message that a column of a relation's key is null.
CREATE FUNCTION rowdelta.keyless_sql(p_relation rowdelta.relation, p_at integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    c rowdelta.mapped_column := p_relation.columns[p_at];
BEGIN
    RETURN (
        SELECT format('%L || CASE WHEN %s THEN ''absent'' ELSE ''null'' END || %L',
                      CASE WHEN bool_and(p.place <> '') THEN string_agg(left(p.place, -2), ', ' ORDER BY p.at) ELSE c.name END || ': is ',
                      string_agg(CASE WHEN c.lookup IS NULL THEN format('f.v%s IS NULL', p_at) ELSE format('f.j%s_%s IS NULL', p_at, p.at) END,
                                 ' AND '),
                      ', and part of the key' || CASE p_relation.kind WHEN 'child' THEN '; give it, or say nullable = true' ELSE '' END)
        FROM unnest(c.places) WITH ORDINALITY AS p (place, at));
END
$$;

COMMENT ON FUNCTION rowdelta.keyless_sql(rowdelta.relation, integer) IS 'SQL of the message that a column of a key is null';

-- rowdelta.rows_sql(p_plan, p_ix, p_inserts): SQL of the source rows of a relation, as one array.
--
-- p_inserts: catalogue rows that are missing may be inserted yet, so that references to them are counted, not refused. A link whose catalogue row is skipped comes along as a row without a target, for the reference to be counted.
CREATE FUNCTION rowdelta.rows_sql(p_plan rowdelta.plan_of_mapping, p_ix integer, p_inserts boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v        rowdelta.relation := p_plan.relations[p_ix];
    c        rowdelta.mapped_column;
    v_lookup rowdelta.lookup;
    v_values text := '';
    v_forms  text := '';
    v_joins  text := '';
    v_skips  text := '';
    v_cells  text[] := '{}';
    v_bytes  text[] := '{}';
    v_tuple  text := format('int2send(%s::smallint)', cardinality(v.columns));
    v_kept   text[] := '{}';
    v_cell   text;
    v_absent text;
BEGIN
    FOR i IN 1 .. cardinality(v.columns) LOOP
        c := v.columns[i];
        IF c.lookup IS NULL THEN
            v_values := v_values || format(CASE WHEN v_skips <> '' AND v.kind = 'link' THEN ', CASE WHEN l1.id IS NOT NULL THEN %s END AS c%s'
                                                ELSE ', %s AS c%s' END, rowdelta.value_sql(c, 'k.v' || i, c.places[1]), i);
            v_absent := format('f.v%s IS NULL', i);
        ELSE
            v_lookup := (SELECT l FROM unnest(p_plan.lookups) AS l WHERE l.name = c.lookup);
            v_joins := v_joins || format(' LEFT JOIN LATERAL (SELECT t.%I AS id FROM %s AS t WHERE %s) AS l%s ON true',
                                         v_lookup.id, v_lookup.tbl, rowdelta.met_sql(v_lookup, i, 'k', 't'), i);
            -- Without its target a link is no row.
            v_values := v_values || format(', CASE WHEN k.silent OR %1$s' || CASE WHEN v.kind = 'link' AND i > 1 THEN ' OR l1.id IS NULL'
                ELSE '' END || ' THEN NULL WHEN %2$s THEN rowdelta.refuse(%3$s)::%4$s '
                'WHEN l%5$s.id IS NULL THEN %6$s ELSE l%5$s.id::%4$s END AS c%5$s',
                rowdelta.nulls_sql(v_lookup, i, 'k', true), rowdelta.nulls_sql(v_lookup, i, 'k', false),
                rowdelta.incomplete_sql(v_lookup, c, i), c.sql, i,
                CASE WHEN v_lookup.missing = 'skip' OR (p_inserts AND v_lookup.missing = 'insert') THEN 'NULL'
                     ELSE format('rowdelta.refuse(%s)::%s', rowdelta.unknown_sql(v_lookup, c, i), c.sql) END);
            v_skips := v_skips || format(', (NOT k.silent AND NOT %1$s AND l%2$s.id IS NULL' || CASE WHEN v.kind = 'link' AND i > 1
                                         THEN ' AND l1.id IS NOT NULL' ELSE '' END || ')::integer AS s%2$s',
                                         rowdelta.nulls_sql(v_lookup, i, 'k', true), i);
            v_absent := (SELECT string_agg(format('f.j%s_%s IS NULL', i, n), ' AND ')
                         FROM generate_series(1, cardinality(v_lookup.keys)) AS n);
        END IF;
        v_forms := v_forms || format(', %s AS f%s', rowdelta.form_sql(c, 'c.c' || i), i);
        v_cells := v_cells || format('f.c%s::text', i);
        v_bytes := v_bytes || ('f.f' || i);
        v_cell := rowdelta.cell_sql('f.f' || i);
        v_tuple := v_tuple || ' || ' || CASE WHEN c.keeps
            THEN format('CASE WHEN %s THEN ''\xfffffffe''::bytea ELSE %s END', v_absent, v_cell) ELSE v_cell END;
        IF c.keeps THEN
            v_kept := v_kept || format('CASE WHEN %s THEN %s END', v_absent, i);
        END IF;
    END LOOP;
    RETURN format(
        'SELECT coalesce(array_agg(ROW(%1$s, f.document, f.number, f.parent, %2$s, ARRAY[%3$s], ARRAY[%4$s], '
        'array_remove(ARRAY[%5$s]::integer[], NULL), %6$s, substr(sha256(%7$s), 1, 16), %8$s, f.silent)'
        '::rowdelta.source_row ORDER BY f.number), ''{}'') FROM ('
        'SELECT c.*%9$s, row_number() OVER (ORDER BY c.document, c.parent, c.at)::integer AS number FROM ('
        'SELECT k.*%10$s%11$s FROM (%12$s OFFSET 0) AS k%13$s OFFSET 0) AS c OFFSET 0) AS f',
        v.ix, CASE WHEN v.encloses THEN 'f.item' ELSE 'NULL' END, array_to_string(v_cells, ', '), array_to_string(v_bytes, ', '),
        array_to_string(v_kept, ', '),
        coalesce((SELECT string_agg(CASE WHEN (v.columns[k.at]).nullable THEN rowdelta.cell_sql('f.f' || k.at) ELSE format(
                'CASE WHEN f.c%1$s IS NULL AND NOT f.silent%4$s THEN rowdelta.refuse(%2$s)::bytea ELSE %3$s END', k.at,
                rowdelta.keyless_sql(v, k.at), rowdelta.cell_sql('f.f' || k.at),
                CASE WHEN (v.columns[k.at]).lookup IS NOT NULL THEN format(' AND f.s%s = 0', k.at) ELSE '' END)
                END, ' || ' ORDER BY k.ordinality) FROM unnest(v.key_at) WITH ORDINALITY AS k (at)), 'NULL'),
        v_tuple, coalesce((SELECT string_agg('f.s' || s.ordinality, ' + ') FROM unnest(v.columns) WITH ORDINALITY AS s
                             WHERE s.lookup IS NOT NULL), '0'),
        v_forms, v_values, v_skips, rowdelta.keyed_sql(p_plan, p_ix), v_joins);
END
$$;

COMMENT ON FUNCTION rowdelta.rows_sql(rowdelta.plan_of_mapping, integer, boolean) IS 'SQL of the source rows of a relation';

-- rowdelta.without_items(p_rows): rows without the items that they were made of.
CREATE FUNCTION rowdelta.without_items(p_rows rowdelta.source_row[]) RETURNS rowdelta.source_row[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT ARRAY(SELECT ROW(r.relation, r.document, r.number, r.parent, NULL, r.cells, r.forms, r.kept, r.key, r.fingerprint,
                            r.skipped, r.silent)::rowdelta.source_row FROM unnest(p_rows) AS r)
$$;

COMMENT ON FUNCTION rowdelta.without_items(rowdelta.source_row[]) IS 'rows without the items that they were made of';

CREATE TYPE rowdelta.shreds AS (
    rows     rowdelta.source_row[],
    inserted jsonb
);

COMMENT ON TYPE rowdelta.shreds IS 'the rows that documents ask for, and how many rows of catalogues were inserted for them';

-- rowdelta.culprit(p_plan, p_ix, p_around, p_documents, p_items, p_message): how a message of the server about a value of a
-- relation begins: with the path of the first column of which it says the same. Nothing: it is about no value.
CREATE FUNCTION rowdelta.culprit(
    p_plan rowdelta.plan_of_mapping, p_ix integer, p_around rowdelta.source_row[], p_documents integer[], p_items jsonb[], p_message text
) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    c        rowdelta.mapped_column;
    v_lookup rowdelta.lookup;
    v_values text[] := '{}';
    v_places text[] := '{}';
BEGIN
    FOREACH c IN ARRAY p_plan.relations[p_ix].columns LOOP
        v_places := v_places || c.places;
        IF c.lookup IS NULL THEN
            v_values := v_values || rowdelta.value_sql(c, rowdelta.found_sql(c), '');
            CONTINUE;
        END IF;
        v_lookup := (SELECT l FROM unnest(p_plan.lookups) AS l WHERE l.name = c.lookup);
        FOR n IN 1 .. cardinality(c.places) LOOP
            v_values := v_values || rowdelta.value_sql(v_lookup.keys[n], rowdelta.find_sql(c.paths -> n - 1, ''), '');
        END LOOP;
        FOREACH c IN ARRAY v_lookup.columns LOOP
            v_places := v_places || c.places;
            v_values := v_values || rowdelta.value_sql(c, rowdelta.find_sql(c.paths -> 0, ''), '');
        END LOOP;
    END LOOP;
    FOR i IN 1 .. cardinality(v_values) LOOP
        BEGIN
            EXECUTE format('SELECT count(%s) FROM (%s) AS e', v_values[i], rowdelta.items_sql(p_plan.relations, p_ix))
            USING p_around, p_documents, p_items;
        EXCEPTION WHEN OTHERS THEN
            IF SQLERRM = p_message THEN
                RETURN v_places[i];
            END IF;
        END;
    END LOOP;
    RETURN '';
END
$$;

COMMENT ON FUNCTION rowdelta.culprit(rowdelta.plan_of_mapping, integer, rowdelta.source_row[], integer[], jsonb[], text) IS
    'which column the server speaks of';

-- rowdelta.shredded(p_plan, p_documents, p_items): the source rows of documents, which have these numbers.
--
-- Where catalogue rows are missing that the mapping says to insert, they are, and the rows are made again.
-- Raises:  RD006 a document does not fit the mapping; what the server says of a value that its column cannot hold.
--          The relation is in the detail.
CREATE FUNCTION rowdelta.shredded(p_plan rowdelta.plan_of_mapping, p_documents integer[], p_items jsonb[])
    RETURNS rowdelta.shreds
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_rows    rowdelta.source_row[] := '{}';
    v_around  rowdelta.source_row[] := '{}';
    v_found   rowdelta.source_row[];
    v_counts  jsonb := '{}';
    v_count   bigint;
    v_label   text;
    v         rowdelta.relation;
    v_state   text;
    v_message text;
BEGIN
    FOREACH v IN ARRAY p_plan.relations LOOP
        EXECUTE rowdelta.rows_sql(p_plan, v.ix, true) INTO v_found USING v_around, p_documents, p_items;
        -- Mostly no catalogue row is missing.
        IF EXISTS (SELECT FROM unnest(v_found) AS r WHERE r.skipped > 0) THEN
            FOR i IN 1 .. cardinality(v.columns) LOOP
                CONTINUE WHEN NOT EXISTS (SELECT FROM unnest(p_plan.lookups) AS l
                                          WHERE l.name = (v.columns[i]).lookup AND l.missing = 'insert');
                EXECUTE rowdelta.catalogue_sql(p_plan, v.ix, i) USING v_around, p_documents, p_items;
                GET DIAGNOSTICS v_count = ROW_COUNT;
                v_label := (v.columns[i]).lookup || ' added';
                v_counts := v_counts || jsonb_build_object(v_label, coalesce((v_counts ->> v_label)::bigint, 0) + v_count);
            END LOOP;
            EXECUTE rowdelta.rows_sql(p_plan, v.ix, false) INTO v_found USING v_around, p_documents, p_items;
        END IF;
        v_rows := v_rows || CASE WHEN v.encloses THEN rowdelta.without_items(v_found) ELSE v_found END;
        IF v.encloses THEN
            v_around := v_around || v_found;
        END IF;
    END LOOP;
    RETURN ROW(v_rows, v_counts);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    -- Of many documents who calls looks for the one.
    IF v_state ~ '^2[23]' AND cardinality(p_documents) = 1 THEN
        v_message := rowdelta.culprit(p_plan, v.ix, v_around, p_documents, p_items, v_message) || v_message;
    END IF;
    RAISE EXCEPTION '%', v_message USING ERRCODE = v_state, DETAIL = v.name;
END
$$;

COMMENT ON FUNCTION rowdelta.shredded(rowdelta.plan_of_mapping, integer[], jsonb[]) IS 'the rows that documents ask for';

CREATE TYPE rowdelta.node AS (
    relation integer,
    number   integer,
    hash     bytea
);

COMMENT ON TYPE rowdelta.node IS 'a hash of a row';

-- rowdelta.trees(p_relations, p_rows): of each row the hash of it and of what is below it. Of the rows `parent` by number in
-- the relation around, `fingerprint` and `silent` are looked at.
CREATE FUNCTION rowdelta.trees(p_relations rowdelta.relation[], p_rows rowdelta.source_row[]) RETURNS rowdelta.node[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_nodes rowdelta.node[];
    v_ix    integer;
BEGIN
    v_nodes := ARRAY(SELECT ROW(r.relation, r.number, CASE WHEN r.silent THEN '\x6b657074000000000000000000000000'
                                                           ELSE r.fingerprint END)::rowdelta.node
                     FROM unnest(p_rows) AS r WHERE NOT p_relations[r.relation].encloses OR r.silent);
    -- Bottom up: relations stand behind those that enclose them.
    FOR v_ix IN SELECT l.ix FROM unnest(p_relations) AS l WHERE l.encloses ORDER BY l.ix DESC LOOP
        v_nodes := v_nodes || ARRAY(
            WITH below AS (
                SELECT r.parent, r.relation, int4send(count(*)::integer) || string_agg(n.hash, '' ORDER BY n.hash) AS part
                FROM unnest(p_rows) AS r JOIN unnest(v_nodes) AS n ON n.relation = r.relation AND n.number = r.number
                WHERE p_relations[r.relation].enclosing = v_ix GROUP BY r.parent, r.relation
            ), spread AS (
                SELECT r.number, r.fingerprint, l.ix, coalesce(b.part, int4send(0)) AS part
                FROM unnest(p_rows) AS r CROSS JOIN (SELECT l.ix FROM unnest(p_relations) AS l WHERE l.enclosing = v_ix) AS l
                LEFT JOIN below AS b ON b.parent = r.number AND b.relation = l.ix
                WHERE r.relation = v_ix AND NOT r.silent
            )
            SELECT ROW(v_ix, s.number, substr(sha256(s.fingerprint || string_agg(s.part, '' ORDER BY s.ix)), 1, 16))::rowdelta.node
            FROM spread AS s GROUP BY s.number, s.fingerprint);
    END LOOP;
    RETURN v_nodes;
END
$$;

COMMENT ON FUNCTION rowdelta.trees(rowdelta.relation[], rowdelta.source_row[]) IS 'hashes of rows and of what is below them';

-- rowdelta.identities(p_relations, p_rows, p_trees): of each row that encloses others, what tells it apart in its document.
CREATE FUNCTION rowdelta.identities(
    p_relations rowdelta.relation[], p_rows rowdelta.source_row[], p_trees rowdelta.node[]
) RETURNS rowdelta.node[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_nodes rowdelta.node[];
    v_ix    integer;
BEGIN
    v_nodes := ARRAY(SELECT ROW(1, r.number, '\x00000000000000000000000000000000')::rowdelta.node
                     FROM unnest(p_rows) AS r WHERE r.relation = 1);
    FOR v_ix IN SELECT l.ix FROM unnest(p_relations) AS l WHERE l.encloses AND l.ix > 1 ORDER BY l.ix LOOP
        v_nodes := v_nodes || ARRAY(
            SELECT ROW(v_ix, r.number, substr(sha256(o.hash || coalesce(r.key, t.hash)), 1, 16))::rowdelta.node
            FROM unnest(p_rows) AS r
            JOIN unnest(v_nodes) AS o ON o.relation = p_relations[v_ix].enclosing AND o.number = r.parent
            JOIN unnest(p_trees) AS t ON t.relation = v_ix AND t.number = r.number
            WHERE r.relation = v_ix AND NOT r.silent);
    END LOOP;
    RETURN v_nodes;
END
$$;

COMMENT ON FUNCTION rowdelta.identities(rowdelta.relation[], rowdelta.source_row[], rowdelta.node[]) IS
    'what tells rows apart that enclose others';

-- rowdelta.key_said(p_relation, p_rows, p_number): the key of one of the rows of a relation, for messages.
CREATE FUNCTION rowdelta.key_said(p_relation rowdelta.relation, p_rows rowdelta.source_row[], p_number integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(k.name || '=' || coalesce(left(r.cells[p_relation.key_at[k.at]], 100), 'null'), ', ' ORDER BY k.at)
        FROM unnest(p_rows) AS r CROSS JOIN unnest(p_relation.key) WITH ORDINALITY AS k (name, at)
        WHERE r.relation = p_relation.ix AND r.number = p_number);
END
$$;

COMMENT ON FUNCTION rowdelta.key_said(rowdelta.relation, rowdelta.source_row[], integer) IS 'the key of a row, for messages';

-- rowdelta.chosen(p_relations, p_rows): the rows without those that are another one's duplicates, with what is below these,
-- and without links that have no target: the root row of the document counts their references as skipped.
--
-- Deepest relation first: what is below a row is compared without the duplicates in it.
-- Raises:  RD006 two rows have one key and other content, or one key that is unique in the table stands under two parents
--          of one document. The relation is in the detail.
CREATE FUNCTION rowdelta.chosen(p_relations rowdelta.relation[], p_rows rowdelta.source_row[]) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_rows    rowdelta.source_row[] := p_rows;
    v_skipped rowdelta.source_row[] := '{}';
    v_trees   rowdelta.node[];
    v_gone    integer[];
    v_number  integer;
    v         rowdelta.relation;
BEGIN
    IF EXISTS (SELECT FROM unnest(v_rows) AS r WHERE r.skipped > 0) THEN
        v_skipped := ARRAY(SELECT r FROM unnest(v_rows) AS r
                           WHERE NOT r.silent AND (p_relations[r.relation]).kind = 'link' AND r.forms[1] IS NULL);
        v_rows := ARRAY(SELECT r FROM unnest(v_rows) AS r
                        WHERE r.silent OR (p_relations[r.relation]).kind <> 'link' OR r.forms[1] IS NOT NULL);
    END IF;
    FOR v IN SELECT l.* FROM unnest(p_relations) AS l WHERE l.ix IN (
        SELECT r.relation FROM unnest(v_rows) AS r WHERE r.relation > 1 AND r.key IS NOT NULL AND NOT r.silent
        GROUP BY r.relation, r.parent, r.key HAVING count(*) > 1) ORDER BY l.ix DESC
    LOOP
        v_trees := rowdelta.trees(p_relations, v_rows);
        SELECT array_agg(d.number) FILTER (WHERE d.place > 1), min(d.number) FILTER (WHERE d.differs AND v.on_duplicate = 'error')
        INTO v_gone, v_number
        FROM (SELECT r.number, t.hash <> first_value(t.hash) OVER w AS differs, row_number() OVER w AS place
              FROM unnest(v_rows) AS r JOIN unnest(v_trees) AS t ON t.relation = v.ix AND t.number = r.number
              WHERE r.relation = v.ix AND NOT r.silent
              WINDOW w AS (PARTITION BY r.parent, r.key
                           ORDER BY CASE v.on_duplicate WHEN 'last' THEN -r.number ELSE r.number END)) AS d;
        IF v_number IS NOT NULL THEN
            PERFORM rowdelta.refuse(format('two items with the key %s differ: on_duplicate = "first" or "last" takes one of them',
                                           rowdelta.key_said(v, v_rows, v_number)));
        ELSIF v_gone IS NOT NULL THEN
            v_rows := rowdelta.without(p_relations, v_rows, v.ix, v_gone);
        END IF;
    END LOOP;
    FOR v IN SELECT l.* FROM unnest(p_relations) AS l WHERE l.everywhere AND l.ix IN (
        SELECT r.relation FROM unnest(v_rows) AS r WHERE r.relation > 1 AND NOT r.silent
        GROUP BY r.relation, r.document, r.key HAVING count(*) > 1)
    LOOP
        SELECT min(r.number) INTO v_number FROM unnest(v_rows) AS r WHERE r.relation = v.ix AND NOT r.silent
        GROUP BY r.document, r.key HAVING count(*) > 1 LIMIT 1;
        PERFORM rowdelta.refuse(format('two items with the key %s stand under two parents, and unique_in = "all": take one out',
                                       rowdelta.key_said(v, v_rows, v_number)));
    END LOOP;
    IF v_skipped <> '{}' THEN
        v_rows := ARRAY(
            SELECT CASE WHEN n.skipped IS NULL THEN r ELSE ROW(
                r.relation, r.document, r.number, r.parent, r.item, r.cells, r.forms, r.kept, r.key, r.fingerprint,
                r.skipped + n.skipped, r.silent)::rowdelta.source_row END
            FROM unnest(v_rows) AS r LEFT JOIN (
                SELECT k.document, sum(k.skipped)::integer AS skipped FROM unnest(v_skipped) AS k
                JOIN unnest(v_rows) AS o ON o.relation = p_relations[k.relation].enclosing AND o.number = k.parent
                GROUP BY k.document) AS n ON r.relation = 1 AND n.document = r.document);
    END IF;
    RETURN v_rows;
EXCEPTION WHEN SQLSTATE 'RD006' THEN
    RAISE EXCEPTION '%', SQLERRM USING ERRCODE = 'RD006', DETAIL = v.name;
END
$$;

COMMENT ON FUNCTION rowdelta.chosen(rowdelta.relation[], rowdelta.source_row[]) IS 'the rows without duplicates';

-- rowdelta.without(p_relations, p_rows, p_ix, p_numbers): the rows without some of a relation, and what is below these.
CREATE FUNCTION rowdelta.without(
    p_relations rowdelta.relation[], p_rows rowdelta.source_row[], p_ix integer, p_numbers integer[]
) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_rows  rowdelta.source_row[];
    v_inner integer;
    v_below integer[];
BEGIN
    v_rows := ARRAY(SELECT r FROM unnest(p_rows) AS r WHERE r.relation <> p_ix OR r.number <> ALL (p_numbers));
    FOR v_inner IN SELECT l.ix FROM unnest(p_relations) AS l WHERE l.enclosing = p_ix LOOP
        v_below := ARRAY(SELECT r.number FROM unnest(p_rows) AS r WHERE r.relation = v_inner AND r.parent = ANY (p_numbers));
        IF v_below <> '{}' THEN
            v_rows := rowdelta.without(p_relations, v_rows, v_inner, v_below);
        END IF;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION rowdelta.without(rowdelta.relation[], rowdelta.source_row[], integer, integer[]) IS
    'rows without some of a relation, and what is below these';

CREATE TYPE rowdelta.print AS (
    document    integer,
    key         bytea,
    fingerprint bytea,
    recorded    bytea,
    raw         bytea
);

COMMENT ON TYPE rowdelta.print IS
    'the fingerprint of a document, those of its relations as they are recorded, and what stands for its text';

-- rowdelta.prints(p_relations, p_rows, p_trees): the fingerprints of documents, as the engine makes them.
CREATE FUNCTION rowdelta.prints(p_relations rowdelta.relation[], p_rows rowdelta.source_row[], p_trees rowdelta.node[])
    RETURNS rowdelta.print[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    WITH entries AS (
        SELECT r.document, r.relation, CASE WHEN l.enclosing > 1 THEN substr(sha256(i.hash || c.hash), 1, 16) ELSE c.hash END AS entry
        FROM unnest(p_rows) AS r
        JOIN unnest(p_relations) AS l ON l.ix = r.relation
        CROSS JOIN LATERAL (SELECT CASE WHEN r.silent THEN '\x6b657074000000000000000000000000' ELSE r.fingerprint END AS hash) AS c
        LEFT JOIN unnest(CASE WHEN EXISTS (SELECT FROM unnest(p_relations) AS l WHERE l.enclosing > 1)
                              THEN rowdelta.identities(p_relations, p_rows, p_trees) ELSE '{}' END) AS i
            ON i.relation = l.enclosing AND i.number = r.parent
    ), hashed AS (
        SELECT d.document, d.key, l.ix, substr(sha256(l.digest || coalesce(string_agg(e.entry, '' ORDER BY e.entry), '')), 1, 16) AS hash,
               substr(sha256(l.digest), 1, 16) AS of_none
        FROM (SELECT r.document, r.key FROM unnest(p_rows) AS r WHERE r.relation = 1) AS d
        CROSS JOIN unnest(p_relations) AS l
        LEFT JOIN entries AS e ON e.document = d.document AND e.relation = l.ix
        GROUP BY d.document, d.key, l.ix, l.digest
    )
    SELECT ARRAY(SELECT ROW(h.document, h.key, substr(sha256(string_agg(h.hash, '' ORDER BY h.ix)), 1, 16),
           int2send(count(*)::smallint)
           || (SELECT string_agg(set_byte('\x00', 0, b.bits), '' ORDER BY b.byte)
               FROM (SELECT (o.ix - 1) / 8 AS byte, sum(CASE WHEN o.hash <> o.of_none THEN 1 << (o.ix - 1) % 8 ELSE 0 END)::integer AS bits
                     FROM unnest(array_agg(h.ix), array_agg(h.hash), array_agg(h.of_none)) AS o (ix, hash, of_none)
                     GROUP BY 1) AS b)
           || coalesce(string_agg(h.hash, '' ORDER BY h.ix) FILTER (WHERE h.hash <> h.of_none), ''), NULL)::rowdelta.print
    FROM hashed AS h GROUP BY h.document, h.key)
$$;

COMMENT ON FUNCTION rowdelta.prints(rowdelta.relation[], rowdelta.source_row[], rowdelta.node[]) IS
    'the fingerprints of documents, as the engine makes them';

-- ---- What is stored, and how it differs --------------------------------------------------------

CREATE TYPE rowdelta.stored_row AS (
    relation    integer,
    document    integer,
    number      integer,
    parent      integer,
    place       text[],
    reference   text[],
    refer       text[],
    forms       bytea[],
    cells       text[],
    key         bytea,
    fingerprint bytea
);

COMMENT ON TYPE rowdelta.stored_row IS
    'a stored row: its version (table, ctid, xmin), what it refers to, what rows inside it refer to';

CREATE TYPE rowdelta.row_change AS (
    relation integer,
    action   text,
    stored   integer,
    source   integer,
    columns  integer[]
);

COMMENT ON TYPE rowdelta.row_change IS
    'what becomes of a row: added, updated, moved, removed, unchanged or left (alone); numbers of stored and source row';

-- rowdelta.stored_sql(p_relations, p_ix, p_found): SQL of stored rows of a relation, as one array.
--
-- p_found: SQL of which, about `t`. $1: the rows of the relation around it, by number of which `parent` is; $2: how many
-- rows of the relation are known already; $3: what p_found asks for.
CREATE FUNCTION rowdelta.stored_sql(p_relations rowdelta.relation[], p_ix integer, p_found text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_relations[p_ix];
    v_forms text[] := '{}';
    v_cells text[] := '{}';
    v_bytes text[] := '{}';
    v_key   text;
    v_refer text;
BEGIN
    FOR i IN 1 .. cardinality(v.columns) LOOP
        v_forms := v_forms || format('%s AS f%s', rowdelta.form_sql(v.columns[i], 't.' || quote_ident((v.columns[i]).name)), i);
        v_bytes := v_bytes || ('s.f' || i);
        v_cells := v_cells || format('t.%I::text', (v.columns[i]).name);
    END LOOP;
    v_key := (SELECT string_agg(rowdelta.cell_sql('s.f' || k.at), ' || ' ORDER BY k.ordinality)
              FROM unnest(v.key_at) WITH ORDINALITY AS k (at));
    v_refer := CASE WHEN v.id IS NOT NULL THEN format('t.%I::text', v.id)
                    ELSE (SELECT string_agg(format('t.%I::text', k.name), ', ' ORDER BY k.at)
                          FROM unnest(v.key) WITH ORDINALITY AS k (name, at)) END;
    RETURN format(
        'SELECT coalesce(array_agg(ROW(%1$s, o.document, $2 + s.number, o.number, s.place, s.reference, s.refer, ARRAY[%2$s], '
        's.cells, %3$s, substr(sha256(%4$s), 1, 16))::rowdelta.stored_row ORDER BY s.number), ''{}'') FROM ('
        'SELECT row_number() OVER (ORDER BY %5$s t.tableoid, t.ctid)::integer AS number, '
        'ARRAY[t.tableoid::text, t.ctid::text, t.xmin::text] AS place, %6$s AS reference, ARRAY[%7$s] AS refer, '
        'ARRAY[%8$s] AS cells, %9$s FROM %10$s AS t WHERE %11$s OFFSET 0) AS s LEFT JOIN unnest($1) AS o '
        'ON o.relation = %12$s AND o.refer = s.reference',
        v.ix, array_to_string(v_bytes, ', '), coalesce(v_key, 'NULL'),
        format('int2send(%s::smallint)', cardinality(v.columns))
            || (SELECT string_agg(' || ' || rowdelta.cell_sql(b), '') FROM unnest(v_bytes) AS b),
        CASE WHEN v.id IS NOT NULL THEN format('t.%I,', v.id) ELSE '' END,
        CASE WHEN v.parent = '{}' THEN 'NULL::text[]' ELSE 'ARRAY[' || (
            SELECT string_agg(format('t.%I::text', p.name), ', ' ORDER BY p.at) FROM unnest(v.parent) WITH ORDINALITY AS p (name, at))
            || ']' END,
        coalesce(v_refer, 'NULL::text'), array_to_string(v_cells, ', '), array_to_string(v_forms, ', '), v.tbl, p_found,
        coalesce(v.enclosing, 0));
END
$$;

COMMENT ON FUNCTION rowdelta.stored_sql(rowdelta.relation[], integer, text) IS 'SQL of stored rows of a relation';

-- rowdelta.among_sql(p_names, p_types, p_nullable): SQL of whether columns of `t` have the values of one of the rows of $3,
-- which are arrays of text in jsonb; where some may be NULL, of rows among which these are.
CREATE FUNCTION rowdelta.among_sql(p_names text[], p_types text[], p_nullable text[] DEFAULT '{}') RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        -- The first column finds the rows by an index, the others are looked at.
        SELECT string_agg(format(CASE WHEN n.name = ANY (p_nullable) THEN '(t.%1$I IS NULL OR %2$s)' ELSE '%2$s' END, n.name, format(
                   't.%I = ANY (ARRAY(SELECT (a.v ->> %s)::%s FROM jsonb_array_elements($3) AS a (v) WHERE a.v ->> %2$s IS NOT NULL))',
                   n.name, n.at - 1, n.type)), ' AND ' ORDER BY n.at) FILTER (WHERE n.at = 1 OR n.name = ANY (p_nullable))
            || CASE WHEN count(*) > 1 THEN coalesce(
                   ' AND (' || string_agg(format('t.%I', n.name), ', ' ORDER BY n.at) FILTER (WHERE n.name <> ALL (p_nullable))
                   || ') IN (SELECT ' || string_agg(format('(a.v ->> %s)::%s', n.at - 1, n.type), ', ' ORDER BY n.at)
                                         FILTER (WHERE n.name <> ALL (p_nullable))
                   || ' FROM jsonb_array_elements($3) AS a (v))', '') ELSE '' END
        FROM unnest(p_names, p_types) WITH ORDINALITY AS n (name, type, at));
END
$$;

COMMENT ON FUNCTION rowdelta.among_sql(text[], text[], text[]) IS 'SQL of whether columns have values that are asked for';

-- rowdelta.key_types(p_relation): the types of the columns of a relation's key.
CREATE FUNCTION rowdelta.key_types(p_relation rowdelta.relation) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT ARRAY(SELECT (p_relation.columns[k.at]).sql FROM unnest(p_relation.key_at) WITH ORDINALITY AS k (at) ORDER BY k.ordinality));
END
$$;

COMMENT ON FUNCTION rowdelta.key_types(rowdelta.relation) IS 'the types of the columns of a key';

-- rowdelta.keyed_among_sql(p_relation): SQL of whether the key of a stored row, `t`, may be one of the rows of $3.
CREATE FUNCTION rowdelta.keyed_among_sql(p_relation rowdelta.relation) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT rowdelta.among_sql(p_relation.key, rowdelta.key_types(p_relation), ARRAY(
        SELECT c.name FROM unnest(p_relation.columns) AS c WHERE c.nullable AND c.name = ANY (p_relation.key)))
$$;

COMMENT ON FUNCTION rowdelta.keyed_among_sql(rowdelta.relation) IS 'SQL of whether a key may be one that is asked for';

-- rowdelta.key_sql(p_relation): SQL of the key of a stored row, `t`, in comparison form.
CREATE FUNCTION rowdelta.key_sql(p_relation rowdelta.relation) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(rowdelta.cell_sql(rowdelta.form_sql(p_relation.columns[k.at],
                                                              format('t.%I', (p_relation.columns[k.at]).name))), ' || ' ORDER BY k.ordinality)
        FROM unnest(p_relation.key_at) WITH ORDINALITY AS k (at));
END
$$;

COMMENT ON FUNCTION rowdelta.key_sql(rowdelta.relation) IS 'SQL of the key of a stored row';

-- rowdelta.paired(...): pairs of a stored and a source row of equal content, of a relation without a key.
CREATE FUNCTION rowdelta.paired(
    p_relations rowdelta.relation[], p_ix integer, p_source rowdelta.source_row[], p_trees rowdelta.node[],
    p_stored rowdelta.stored_row[], p_all_stored rowdelta.stored_row[], p_outer rowdelta.row_change[]
) RETURNS rowdelta.row_change[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    WITH stored AS (
        SELECT t.number, o.source AS slot, t.fingerprint, n.hash FROM unnest(p_stored) AS t
        JOIN unnest(p_outer) AS o ON o.stored = t.parent AND o.source IS NOT NULL
        JOIN unnest(rowdelta.trees(p_relations, ARRAY(
            SELECT ROW(r.relation, r.document, r.number, r.parent, NULL, NULL, NULL, NULL, NULL, r.fingerprint, 0, false)::rowdelta.source_row
            FROM unnest(p_all_stored) AS r))) AS n ON n.relation = p_ix AND n.number = t.number
    ), source AS (
        SELECT s.number, s.parent AS slot, s.fingerprint, n.hash FROM unnest(p_source) AS s
        JOIN unnest(p_trees) AS n ON n.relation = p_ix AND n.number = s.number
        WHERE NOT s.silent
    ), wholes AS (
        SELECT t.number AS stored, s.number AS source
        FROM (SELECT t.*, row_number() OVER (PARTITION BY t.slot, t.fingerprint, t.hash ORDER BY t.number) AS place FROM stored t) AS t
        JOIN (SELECT s.*, row_number() OVER (PARTITION BY s.slot, s.fingerprint, s.hash ORDER BY s.number) AS place FROM source s) AS s
        USING (slot, fingerprint, hash, place)
    ), rest AS (
        SELECT t.number AS stored, s.number AS source
        FROM (SELECT t.*, row_number() OVER (PARTITION BY t.slot, t.fingerprint ORDER BY t.hash, t.number) AS place
              FROM stored t WHERE t.number NOT IN (SELECT w.stored FROM wholes w)) AS t
        JOIN (SELECT s.*, row_number() OVER (PARTITION BY s.slot, s.fingerprint ORDER BY s.hash, s.number) AS place
              FROM source s WHERE s.number NOT IN (SELECT w.source FROM wholes w)) AS s
        USING (slot, fingerprint, place)
    )
    SELECT coalesce(array_agg(ROW(p_ix, NULL, a.stored, a.source, NULL)::rowdelta.row_change), '{}') FROM (SELECT * FROM wholes UNION ALL SELECT * FROM rest) AS a
$$;

COMMENT ON FUNCTION rowdelta.paired(
    rowdelta.relation[], integer, rowdelta.source_row[], rowdelta.node[], rowdelta.stored_row[], rowdelta.stored_row[],
    rowdelta.row_change[]) IS 'pairs of rows of equal content';

-- rowdelta.matched(p_relations, p_ix, p_source, p_trees, p_stored, p_all_stored, p_outer): what becomes of the rows of a
-- relation, its source and its stored rows being given, and p_outer, what becomes of those of the relation around it.
--
-- Rows with a key are the same under one parent (or wherever they are, where it is unique in the table) if their key is.
-- Others are by their content: those of equal content are matched first of which all that is below is equal, then in order.
CREATE FUNCTION rowdelta.matched(
    p_relations rowdelta.relation[], p_ix integer, p_source rowdelta.source_row[], p_trees rowdelta.node[],
    p_stored rowdelta.stored_row[], p_all_stored rowdelta.stored_row[], p_outer rowdelta.row_change[]
) RETURNS rowdelta.row_change[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v         rowdelta.relation := p_relations[p_ix];
    v_pairs   rowdelta.row_change[];
    v_changes rowdelta.row_change[];
    v_silent  integer[] := ARRAY(SELECT r.parent FROM unnest(p_source) AS r WHERE r.silent);
BEGIN
    IF p_stored = '{}' THEN
        v_pairs := '{}';
    ELSIF v.kind = 'root' THEN
        v_pairs := ARRAY(SELECT ROW(p_ix, NULL, t.number, s.number, NULL)::rowdelta.row_change FROM unnest(p_stored) AS t
                         JOIN unnest(p_source) AS s ON s.key = t.key);
    ELSIF v.key IS NOT NULL THEN
        v_pairs := ARRAY(
            SELECT ROW(p_ix, NULL, p.stored, p.source, NULL)::rowdelta.row_change FROM (
                SELECT t.number AS stored, s.number AS source, row_number() OVER (
                           PARTITION BY s.number ORDER BY o.source IS NOT DISTINCT FROM s.parent DESC, t.number) AS place
                FROM unnest(p_stored) AS t LEFT JOIN unnest(p_outer) AS o ON o.stored = t.parent
                JOIN unnest(p_source) AS s ON s.key = t.key AND NOT s.silent AND (v.everywhere OR s.parent = o.source)) AS p
            WHERE p.place = 1);
    ELSE
        v_pairs := rowdelta.paired(p_relations, p_ix, p_source, p_trees, p_stored, p_all_stored, p_outer);
    END IF;
    v_changes := CASE WHEN v_pairs = '{}' THEN '{}' ELSE ARRAY(
        SELECT ROW(p_ix, CASE WHEN v.kind <> 'root' AND o.source IS DISTINCT FROM s.parent THEN 'moved'
                              WHEN d.columns <> '{}' THEN 'updated' ELSE 'unchanged' END,
                   t.number, s.number, d.columns)::rowdelta.row_change
        FROM unnest(v_pairs) AS p
        JOIN unnest(p_stored) AS t ON t.number = p.stored JOIN unnest(p_source) AS s ON s.number = p.source
        LEFT JOIN unnest(p_outer) AS o ON o.stored = t.parent
        CROSS JOIN LATERAL (SELECT CASE WHEN s.fingerprint = t.fingerprint THEN '{}' ELSE ARRAY(
            SELECT i FROM generate_series(1, cardinality(s.forms)) AS i
            WHERE s.forms[i] IS DISTINCT FROM t.forms[i] AND i <> ALL (s.kept)) END AS columns) AS d) END;
    RETURN v_changes || CASE WHEN p_stored = '{}' THEN '{}' ELSE ARRAY(
        SELECT ROW(p_ix, CASE WHEN o.source = ANY (v_silent) OR o.action = 'left' THEN 'left' ELSE 'removed' END,
                   t.number, NULL, '{}')::rowdelta.row_change
        FROM unnest(p_stored) AS t LEFT JOIN unnest(p_outer) AS o ON o.stored = t.parent
        LEFT JOIN unnest(v_changes) AS c ON c.stored = t.number
        WHERE (v.kind = 'root' OR t.parent IS NOT NULL) AND c.stored IS NULL) END
    || ARRAY(
        SELECT ROW(p_ix, 'added', NULL, s.number, '{}')::rowdelta.row_change FROM unnest(p_source) AS s
        LEFT JOIN unnest(v_changes) AS c ON c.source = s.number
        WHERE NOT s.silent AND c.source IS NULL);
END
$$;

COMMENT ON FUNCTION rowdelta.matched(
    rowdelta.relation[], integer, rowdelta.source_row[], rowdelta.node[], rowdelta.stored_row[], rowdelta.stored_row[],
    rowdelta.row_change[]) IS 'what becomes of the rows of a relation';


-- ---- Writing the difference --------------------------------------------------------------------

CREATE TYPE rowdelta.comparison AS (
    stored  rowdelta.stored_row[],
    changes rowdelta.row_change[]
);

COMMENT ON TYPE rowdelta.comparison IS 'stored rows of documents, and what becomes of them and of what the documents ask for';

-- rowdelta.read_rows(p_relations, p_ix, p_source, p_around): the stored rows of a relation that belong to documents: root rows by
-- their keys, others by the rows around them, p_around, to which they refer.
CREATE FUNCTION rowdelta.read_rows(
    p_relations rowdelta.relation[], p_ix integer, p_source rowdelta.source_row[], p_around rowdelta.stored_row[]
) RETURNS rowdelta.stored_row[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v       rowdelta.relation := p_relations[p_ix];
    v_outer rowdelta.stored_row[] := ARRAY(SELECT r FROM unnest(p_around) AS r WHERE r.relation = v.enclosing);
    v_keys  jsonb;
    v_rows  rowdelta.stored_row[];
BEGIN
    v_keys := CASE WHEN v.kind = 'root' THEN rowdelta.keys_of(v, p_source)
                   ELSE (SELECT jsonb_agg(to_jsonb(r.refer)) FROM unnest(v_outer) AS r) END;
    IF v_keys IS NULL THEN
        RETURN '{}';
    END IF;
    EXECUTE rowdelta.stored_sql(p_relations, p_ix, CASE WHEN v.kind = 'root'
        THEN rowdelta.keyed_among_sql(v) ELSE rowdelta.among_sql(v.parent, v.parent_types) END)
    INTO v_rows USING v_outer, 0, v_keys;
    IF v.kind <> 'root' THEN
        RETURN v_rows;
    END IF;
    RETURN ARRAY(
        SELECT ROW(t.relation, s.document, t.number, t.parent, t.place, t.reference, t.refer, t.forms, t.cells, t.key,
                   t.fingerprint)::rowdelta.stored_row
        FROM unnest(v_rows) AS t JOIN unnest(p_source) AS s ON s.key = t.key);
END
$$;

COMMENT ON FUNCTION rowdelta.read_rows(rowdelta.relation[], integer, rowdelta.source_row[], rowdelta.stored_row[]) IS
    'the stored rows of a relation that belong to documents';

-- rowdelta.compared(p_plan, p_source, p_trees): reads what is stored of documents, relation by relation, and compares it with
-- what they ask for. Rows whose key is unique in the table are looked for under any parent.
CREATE FUNCTION rowdelta.compared(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_trees rowdelta.node[]
) RETURNS rowdelta.comparison
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_relations rowdelta.relation[] := p_plan.relations;
    v           rowdelta.relation;
    v_ix        integer;
    v_all       rowdelta.comparison := ROW('{}', '{}');
    v_source    rowdelta.source_row[];
    -- Of the relations that enclose others.
    v_around    rowdelta.comparison := ROW('{}', '{}');
    v_rows      rowdelta.stored_row[];
    v_more      rowdelta.stored_row[];
    v_changes   rowdelta.row_change[];
    v_keys      jsonb;
BEGIN
    FOR v_ix, v_source IN
        SELECT l.ix, coalesce(array_agg(s) FILTER (WHERE s.relation IS NOT NULL), '{}')
        FROM unnest(v_relations) AS l LEFT JOIN unnest(p_source) AS s ON s.relation = l.ix GROUP BY l.ix ORDER BY l.ix
    LOOP
        v := v_relations[v_ix];
        v_rows := rowdelta.read_rows(v_relations, v_ix, v_source, v_around.stored);
        IF v.kind <> 'root' AND v.everywhere THEN
            v_keys := rowdelta.keys_of(v, ARRAY(
                SELECT s FROM unnest(v_source) AS s WHERE NOT s.silent AND s.key NOT IN (SELECT t.key FROM unnest(v_rows) AS t)));
            IF v_keys IS NOT NULL THEN
                EXECUTE rowdelta.stored_sql(v_relations, v_ix, rowdelta.keyed_among_sql(v))
                INTO v_more USING '{}'::rowdelta.stored_row[], cardinality(v_rows), v_keys;
                -- Where a key may be NULL others come along, and some that are there already; nothing below these is ours.
                v_rows := v_rows || ARRAY(SELECT t FROM unnest(v_more) AS t
                                          WHERE t.key IN (SELECT s.key FROM unnest(v_source) AS s WHERE NOT s.silent)
                                            AND t.key NOT IN (SELECT r.key FROM unnest(v_rows) AS r));
            END IF;
        END IF;
        v_all.stored := v_all.stored || v_rows;
        IF v.encloses THEN
            v_around.stored := v_around.stored || v_rows;
        END IF;
    END LOOP;
    -- Rows without a key are told apart by what is below them, too.
    FOR v_ix, v_source IN
        SELECT l.ix, coalesce(array_agg(s) FILTER (WHERE s.relation IS NOT NULL), '{}')
        FROM unnest(v_relations) AS l LEFT JOIN unnest(p_source) AS s ON s.relation = l.ix GROUP BY l.ix ORDER BY l.ix
    LOOP
        v := v_relations[v_ix];
        v_rows := ARRAY(SELECT r FROM unnest(v_all.stored) AS r WHERE r.relation = v_ix);
        CONTINUE WHEN v_rows = '{}' AND v_source = '{}';
        v_changes := rowdelta.matched(v_relations, v_ix, v_source, p_trees, v_rows, v_all.stored, ARRAY(
            SELECT c FROM unnest(v_around.changes) AS c WHERE c.relation = v.enclosing));
        v_all.changes := v_all.changes || v_changes;
        IF v.encloses THEN
            v_around.changes := v_around.changes || v_changes;
        END IF;
    END LOOP;
    RETURN v_all;
END
$$;

COMMENT ON FUNCTION rowdelta.compared(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.node[]) IS
    'compares what is stored of documents with what they ask for';

-- rowdelta.keys_of(p_relation, p_source): the keys of the rows of a relation, each an array of text; NULL: there are none.
CREATE FUNCTION rowdelta.keys_of(p_relation rowdelta.relation, p_source rowdelta.source_row[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_ix integer := p_relation.ix;
    v_at integer[] := p_relation.key_at;
    v_first integer := v_at[1];
BEGIN
    -- Mostly it is one column.
    IF cardinality(v_at) = 1 THEN
        RETURN (SELECT jsonb_agg(jsonb_build_array(s.cells[v_first])) FROM unnest(p_source) AS s WHERE s.relation = v_ix AND NOT s.silent);
    END IF;
    RETURN (
        SELECT jsonb_agg((SELECT jsonb_agg(s.cells[k.at] ORDER BY k.ordinality) FROM unnest(v_at) WITH ORDINALITY AS k (at)))
        FROM unnest(p_source) AS s WHERE s.relation = v_ix AND NOT s.silent);
END
$$;

COMMENT ON FUNCTION rowdelta.keys_of(rowdelta.relation, rowdelta.source_row[]) IS 'the keys of the rows of a relation';

-- rowdelta.owners(p_relations, p_ix, p_references): the documents, by key, to which rows belong that refer to these.
CREATE FUNCTION rowdelta.owners(p_relations rowdelta.relation[], p_ix integer, p_references jsonb) RETURNS bytea[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_outer  rowdelta.relation := p_relations[p_relations[p_ix].enclosing];
    v_found  text[];
    v_types  text[];
    v_value  jsonb;
    v_owners bytea[];
BEGIN
    v_found := CASE WHEN v_outer.id IS NOT NULL THEN ARRAY[v_outer.id] ELSE v_outer.key END;
    v_types := CASE WHEN v_outer.id IS NOT NULL THEN ARRAY[v_outer.id_type] ELSE rowdelta.key_types(v_outer) END;
    IF v_outer.enclosing IS NOT NULL THEN
        EXECUTE format('SELECT jsonb_agg(jsonb_build_array(%s)) FROM %s AS t WHERE %s AND $1 IS NULL AND $2 IS NULL',
                       (SELECT string_agg(format('t.%I::text', p.name), ', ' ORDER BY p.at)
                        FROM unnest(v_outer.parent) WITH ORDINALITY AS p (name, at)),
                       v_outer.tbl, rowdelta.among_sql(v_found, v_types))
        INTO v_value USING NULL::integer, NULL::integer, p_references;
        RETURN CASE WHEN v_value IS NULL THEN '{}' ELSE rowdelta.owners(p_relations, v_outer.ix, v_value) END;
    END IF;
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT %s), ''{}'') FROM %s AS t WHERE %s AND $1 IS NULL AND $2 IS NULL',
                   rowdelta.key_sql(v_outer), v_outer.tbl, rowdelta.among_sql(v_found, v_types))
    INTO v_owners USING NULL::integer, NULL::integer, p_references;
    RETURN v_owners;
END
$$;

COMMENT ON FUNCTION rowdelta.owners(rowdelta.relation[], integer, jsonb) IS 'the documents to which rows belong';

CREATE TYPE rowdelta.written AS (
    place  text[],
    parent text[],
    id     text,
    cells  text[]
);

COMMENT ON TYPE rowdelta.written IS 'a row to write: which version, the parent that it gets, its id and its cells';

CREATE TYPE rowdelta.referred AS (
    relation integer,
    source   integer,
    refer    text[]
);

COMMENT ON TYPE rowdelta.referred IS 'what rows inside a row refer to';

-- rowdelta.write(p_relation, p_sql, p_rows): runs a statement about rows of a relation, and checks that it found all of them.
--
-- Raises:  RD003 one of them was changed meanwhile, or a trigger kept it from being written. The relation is in the detail.
CREATE FUNCTION rowdelta.write(p_relation rowdelta.relation, p_sql text, p_rows rowdelta.written[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    -- Rows are found by their place.
    SET enable_seqscan = off
    SET enable_nestloop = on
AS $$
DECLARE
    v_count   bigint;
    v_state   text;
    v_message text;
BEGIN
    EXECUTE p_sql USING p_rows;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count <> cardinality(p_rows) THEN
        RAISE EXCEPTION 'a row was changed by someone else meanwhile, or a trigger did not let a write through'
            USING ERRCODE = 'RD003';
    END IF;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RAISE EXCEPTION '%', v_message USING ERRCODE = v_state, DETAIL = p_relation.name;
END
$$;

COMMENT ON FUNCTION rowdelta.write(rowdelta.relation, text, rowdelta.written[]) IS 'writes rows, and checks that all are written';

-- SQL that finds the versions that were read: by their place, which nothing but a write changes.
CREATE FUNCTION rowdelta.version_sql() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN 't.ctid = (w.place[2])::tid AND t.tableoid = (w.place[1])::oid AND t.xmin = (w.place[3])::xid';
END
$$;

COMMENT ON FUNCTION rowdelta.version_sql() IS 'SQL that finds the version of a row that was read';

-- rowdelta.delete_rows(p_relations, p_stored, p_changes): deletes stored rows, deepest relation first.
CREATE FUNCTION rowdelta.delete_rows(p_relations rowdelta.relation[], p_stored rowdelta.stored_row[], p_changes rowdelta.row_change[])
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_ix   integer;
    v_rows rowdelta.written[];
BEGIN
    FOR v_ix, v_rows IN
        SELECT c.relation, array_agg(ROW(t.place, NULL, NULL, NULL)::rowdelta.written ORDER BY t.number)
        FROM unnest(p_changes) AS c JOIN unnest(p_stored) AS t ON t.relation = c.relation AND t.number = c.stored
        GROUP BY c.relation ORDER BY c.relation DESC
    LOOP
        PERFORM rowdelta.write(p_relations[v_ix], format('DELETE FROM %s AS t USING unnest($1) AS w WHERE %s',
                                                         (p_relations[v_ix]).tbl, rowdelta.version_sql()), v_rows);
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.delete_rows(rowdelta.relation[], rowdelta.stored_row[], rowdelta.row_change[]) IS 'deletes stored rows';

-- rowdelta.update_rows(p_relations, p_source, p_stored, p_changes, p_referred)
--
-- Updates rows, in one statement for each set of columns that differ: these are set, and no others.
CREATE FUNCTION rowdelta.update_rows(
    p_relations rowdelta.relation[], p_source rowdelta.source_row[], p_stored rowdelta.stored_row[],
    p_changes rowdelta.row_change[], p_referred rowdelta.referred[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v         rowdelta.relation;
    v_ix      integer;
    v_columns integer[];
    v_moves   boolean;
    v_rows    rowdelta.written[];
    v_sets    text[];
BEGIN
    FOR v_ix, v_columns, v_moves, v_rows IN
        SELECT c.relation, c.columns, c.action = 'moved',
               array_agg(ROW(t.place, r.refer, NULL, s.cells)::rowdelta.written ORDER BY t.number)
        FROM unnest(p_changes) AS c
        JOIN unnest(p_stored) AS t ON t.relation = c.relation AND t.number = c.stored
        JOIN unnest(p_source) AS s ON s.relation = c.relation AND s.number = c.source
        LEFT JOIN unnest(p_referred) AS r ON r.relation = (p_relations[c.relation]).enclosing AND r.source = s.parent
        GROUP BY c.relation, c.columns, c.action ORDER BY c.relation, c.action, c.columns
    LOOP
        v := p_relations[v_ix];
        v_sets := ARRAY(SELECT format('%I = (w.cells[%s])::%s', (v.columns[i]).name, i, (v.columns[i]).sql)
                        FROM unnest(v_columns) AS i);
        IF v_moves THEN
            v_sets := v_sets || ARRAY(SELECT format('%I = (w.parent[%s])::%s', p.name, p.at, v.parent_types[p.at])
                                      FROM unnest(v.parent) WITH ORDINALITY AS p (name, at));
        END IF;
        PERFORM rowdelta.write(v, format('UPDATE %s AS t SET %s FROM unnest($1) AS w WHERE %s', v.tbl,
                                         array_to_string(v_sets, ', '), rowdelta.version_sql()), v_rows);
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.update_rows(
    rowdelta.relation[], rowdelta.source_row[], rowdelta.stored_row[], rowdelta.row_change[], rowdelta.referred[]) IS
    'updates rows, the columns that differ';

-- rowdelta.insert_rows(p_relation, p_source, p_referred): inserts rows; gives what rows inside them refer to.
--
-- Columns about which a document says nothing get their default: one statement for each set of these.
CREATE FUNCTION rowdelta.insert_rows(
    p_relation rowdelta.relation, p_source rowdelta.source_row[], p_referred rowdelta.referred[]
) RETURNS rowdelta.referred[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v          rowdelta.relation := p_relation;
    v_ids      text[];
    v_kept     integer[];
    v_rows     rowdelta.written[];
    v_with_id  boolean := v.encloses AND v.id_default IS NOT NULL;
    v_names    text[];
    v_values   text[];
    v_id_at    integer := array_position(ARRAY(SELECT c.name FROM unnest(v.columns) AS c), v.id);
BEGIN
    IF v_with_id THEN
        -- Evaluated here, so that it is known which row has which.
        EXECUTE format('SELECT array_agg((%s)::text) FROM generate_series(1, $1)', v.id_default)
        INTO v_ids USING cardinality(p_source);
    END IF;
    FOR v_kept, v_rows IN
        SELECT s.kept, array_agg(ROW(NULL, r.refer, v_ids[s.ordinality], s.cells)::rowdelta.written ORDER BY s.number)
        FROM unnest(p_source) WITH ORDINALITY AS s
        LEFT JOIN unnest(p_referred) AS r ON r.relation = v.enclosing AND r.source = s.parent
        GROUP BY s.kept
    LOOP
        v_names := ARRAY(SELECT quote_ident(p.name) FROM unnest(v.parent) WITH ORDINALITY AS p (name, at) ORDER BY p.at)
            || CASE WHEN v_with_id THEN quote_ident(v.id) END
            || ARRAY(SELECT quote_ident((v.columns[i]).name) FROM generate_series(1, cardinality(v.columns)) AS i
                     WHERE i <> ALL (v_kept) ORDER BY i);
        v_values := ARRAY(SELECT format('(w.parent[%s])::%s', p.at, p.type)
                          FROM unnest(v.parent_types) WITH ORDINALITY AS p (type, at) ORDER BY p.at)
            || CASE WHEN v_with_id THEN format('w.id::%s', v.id_type) END
            || ARRAY(SELECT format('(w.cells[%s])::%s', i, (v.columns[i]).sql) FROM generate_series(1, cardinality(v.columns)) AS i
                     WHERE i <> ALL (v_kept) ORDER BY i);
        PERFORM rowdelta.write(v, format(
            'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM unnest($1) WITH ORDINALITY AS w ORDER BY w.ordinality',
            v.tbl, array_to_string(v_names, ', '), array_to_string(v_values, ', ')), v_rows);
    END LOOP;
    RETURN ARRAY(
        SELECT ROW(v.ix, s.number, CASE WHEN v_with_id THEN ARRAY[v_ids[s.ordinality]] WHEN v_id_at IS NOT NULL THEN ARRAY[s.cells[v_id_at]]
                   ELSE ARRAY(SELECT s.cells[k.at] FROM unnest(v.key_at) WITH ORDINALITY AS k (at) ORDER BY k.ordinality) END
               )::rowdelta.referred
        FROM unnest(p_source) WITH ORDINALITY AS s WHERE v.encloses);
END
$$;

COMMENT ON FUNCTION rowdelta.insert_rows(rowdelta.relation, rowdelta.source_row[], rowdelta.referred[]) IS
    'inserts rows';

-- rowdelta.left_behind(p_relations, p_stored, p_changes): of the rows that go, those below which one moves away first.
CREATE FUNCTION rowdelta.left_behind(
    p_relations rowdelta.relation[], p_stored rowdelta.stored_row[], p_changes rowdelta.row_change[]
) RETURNS rowdelta.row_change[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_behind rowdelta.row_change[] := '{}';
BEGIN
    FOR v_ix IN REVERSE cardinality(p_relations) .. 2 LOOP
        v_behind := v_behind || ARRAY(
            SELECT o FROM unnest(p_changes) AS o
            WHERE o.relation = p_relations[v_ix].enclosing AND o.action = 'removed' AND o <> ALL (v_behind) AND o.stored IN (
                SELECT t.parent FROM unnest(p_changes || v_behind) AS c
                JOIN unnest(p_stored) AS t ON t.relation = v_ix AND t.number = c.stored
                WHERE c.relation = v_ix AND (c.action = 'moved' OR c.action = 'removed' AND c = ANY (v_behind))));
    END LOOP;
    RETURN v_behind;
END
$$;

COMMENT ON FUNCTION rowdelta.left_behind(rowdelta.relation[], rowdelta.stored_row[], rowdelta.row_change[]) IS
    'rows that go after others have moved away from them';

-- rowdelta.refers(p_relations, p_source, p_comparison): what rows inside stored rows refer to, if these stay.
CREATE FUNCTION rowdelta.refers(p_relations rowdelta.relation[], p_source rowdelta.source_row[], p_comparison rowdelta.comparison)
    RETURNS rowdelta.referred[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    SELECT ARRAY(
        -- As it is stored: what a document says may be spelled otherwise, as 1.50 for 1.5.
        SELECT ROW(c.relation, c.source, t.refer)::rowdelta.referred
        FROM unnest(p_comparison.changes) AS c JOIN unnest(p_relations) AS l ON l.ix = c.relation AND l.encloses
        JOIN unnest(p_comparison.stored) AS t ON t.relation = c.relation AND t.number = c.stored
        JOIN unnest(p_source) AS s ON s.relation = c.relation AND s.number = c.source)
$$;

COMMENT ON FUNCTION rowdelta.refers(rowdelta.relation[], rowdelta.source_row[], rowdelta.comparison) IS
    'what rows inside stored rows refer to';

-- rowdelta.applied(p_plan, p_source, p_comparison): writes the difference.
--
-- Rows that go, deepest relation first; rows that change, root first; then, root first, rows that move to another parent
-- and new rows; at last rows from which others moved away. Constraints that can be deferred are, until all is written.
-- Raises:  RD003 a row was changed by someone else meanwhile.
CREATE FUNCTION rowdelta.applied(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_comparison rowdelta.comparison
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_relations rowdelta.relation[] := p_plan.relations;
    v_stored    rowdelta.stored_row[] := p_comparison.stored;
    v_changes   rowdelta.row_change[] := ARRAY(SELECT c FROM unnest(p_comparison.changes) AS c
                                           WHERE c.action IN ('added', 'updated', 'moved', 'removed'));
    v_some      rowdelta.row_change[];
    v_behind    rowdelta.row_change[] := '{}';
    v_referred  rowdelta.referred[];
    v_ix        integer;
    v_new       rowdelta.source_row[];
BEGIN
    IF v_changes = '{}' THEN
        RETURN;
    END IF;
    PERFORM rowdelta.set_constraints(p_plan, 'DEFERRED', false);
    v_some := ARRAY(SELECT c FROM unnest(v_changes) AS c WHERE c.action = 'removed');
    IF v_some <> '{}' THEN
        v_behind := rowdelta.left_behind(v_relations, v_stored, v_changes);
        PERFORM rowdelta.delete_rows(v_relations, v_stored, ARRAY(SELECT c FROM unnest(v_some) AS c WHERE c <> ALL (v_behind)));
    END IF;
    v_some := ARRAY(SELECT c FROM unnest(v_changes) AS c WHERE c.action = 'updated');
    IF v_some <> '{}' THEN
        PERFORM rowdelta.update_rows(v_relations, p_source, v_stored, v_some, '{}');
    END IF;
    v_referred := rowdelta.refers(v_relations, p_source, p_comparison);
    FOR v_ix, v_new, v_some IN
        SELECT c.relation, array_agg(s ORDER BY s.number) FILTER (WHERE c.action = 'added'),
               array_agg(c) FILTER (WHERE c.action = 'moved')
        FROM unnest(v_changes) AS c JOIN unnest(p_source) AS s ON s.relation = c.relation AND s.number = c.source
        WHERE c.action IN ('added', 'moved') GROUP BY c.relation ORDER BY c.relation
    LOOP
        IF v_some IS NOT NULL THEN
            PERFORM rowdelta.update_rows(v_relations, p_source, v_stored, v_some, v_referred);
        END IF;
        IF v_new IS NOT NULL THEN
            v_referred := v_referred || rowdelta.insert_rows(v_relations[v_ix], v_new, v_referred);
        END IF;
    END LOOP;
    PERFORM rowdelta.delete_rows(v_relations, v_stored, v_behind);
    PERFORM rowdelta.note_emptied(p_plan, v_changes);
    PERFORM rowdelta.set_constraints(p_plan, 'IMMEDIATE', false), rowdelta.set_constraints(p_plan, 'DEFERRED', true);
END
$$;

COMMENT ON FUNCTION rowdelta.applied(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.comparison) IS
    'writes the difference';

-- rowdelta.note_emptied(p_plan, p_changes): tells the command which tables are empty because their last rows were removed here:
-- one that is and is not told of was truncated or lost to it, and it compares all documents.
CREATE FUNCTION rowdelta.note_emptied(p_plan rowdelta.plan_of_mapping, p_changes rowdelta.row_change[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_filled text[];
    v_gone   integer[] := ARRAY(SELECT DISTINCT c.relation FROM unnest(p_changes) AS c WHERE c.action = 'removed');
    v_empty  integer[];
    v_names  text[];
BEGIN
    IF v_gone = '{}' THEN
        RETURN;
    END IF;
    v_empty := rowdelta.emptied(p_plan);
    SELECT m.filled INTO v_filled FROM rowdelta.mapping m WHERE m.id = p_plan.mapping;
    v_names := ARRAY(SELECT l.name FROM unnest(p_plan.relations) AS l
                     WHERE l.ix = ANY (v_gone) AND l.ix = ANY (v_empty) AND l.name = ANY (v_filled));
    IF v_names <> '{}' THEN
        UPDATE rowdelta.mapping m SET filled = ARRAY(SELECT f.name FROM unnest(m.filled) WITH ORDINALITY AS f (name, at)
                                                     WHERE f.name <> ALL (v_names) ORDER BY f.at)
        WHERE m.id = p_plan.mapping;
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.note_emptied(rowdelta.plan_of_mapping, rowdelta.row_change[]) IS
    'tells the command which tables are empty because their last rows were removed';

-- rowdelta.set_constraints(p_plan, p_when, p_initially): sets when the deferrable constraints of the tables are checked; or
-- only of those that are deferred initially.
CREATE FUNCTION rowdelta.set_constraints(p_plan rowdelta.plan_of_mapping, p_when text, p_initially boolean) RETURNS text
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_names text;
BEGIN
    SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ') INTO v_names
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.conrelid IN (SELECT l.oid FROM unnest(p_plan.relations) AS l) AND c.condeferrable
      AND (c.condeferred OR NOT p_initially)
      -- The name means those of other tables, too.
      AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.connamespace = c.connamespace AND o.conname = c.conname AND NOT o.condeferrable);
    IF v_names IS NOT NULL THEN
        EXECUTE format('SET CONSTRAINTS %s %s', v_names, p_when);
    END IF;
    RETURN v_names;
END
$$;

COMMENT ON FUNCTION rowdelta.set_constraints(rowdelta.plan_of_mapping, text, boolean) IS
    'sets when the deferrable constraints of the tables are checked';

-- ---- Syncing -----------------------------------------------------------------------------------

CREATE TYPE rowdelta.failed AS (
    document  integer,
    relation  text,
    sqlstate  text,
    message   text
);

COMMENT ON TYPE rowdelta.failed IS 'a document that was not stored, and why';

CREATE TYPE rowdelta.stored_document AS (
    document integer,
    status   text,
    skipped  integer
);

COMMENT ON TYPE rowdelta.stored_document IS 'what became of a document, and how many references of it were left out';

CREATE TYPE rowdelta.done AS (
    documents rowdelta.stored_document[],
    counts    jsonb,
    failures  rowdelta.failed[],
    because   text
);

COMMENT ON TYPE rowdelta.done IS 'what became of documents, how many rows were written in each relation, what failed, and why documents were withheld';

-- rowdelta.is_transient(p_state): whether an error may be gone when the same is tried again.
CREATE FUNCTION rowdelta.is_transient(p_state text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN p_state IN ('RD003', '40001', '40P01', '55P03', '55006', '57014');
END
$$;

COMMENT ON FUNCTION rowdelta.is_transient(text) IS 'whether an error may be gone when the same is tried again';

-- rowdelta.unfit(p_plan, p_documents, p_items): the documents that do not fit the mapping, found by halving.
CREATE FUNCTION rowdelta.unfit(p_plan rowdelta.plan_of_mapping, p_documents integer[], p_items jsonb[])
    RETURNS rowdelta.failed[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_relation text;
    v_half     integer := cardinality(p_documents) / 2;
BEGIN
    PERFORM rowdelta.chosen(p_plan.relations, (rowdelta.shredded(p_plan, p_documents, p_items)).rows);
    -- The rows of catalogues are counted by who inserts them for good.
    RAISE EXCEPTION 'taken back' USING ERRCODE = 'RD009';
EXCEPTION WHEN SQLSTATE 'RD009' THEN
    RETURN '{}';
WHEN OTHERS THEN
    IF cardinality(p_documents) = 1 THEN
        GET STACKED DIAGNOSTICS v_relation = PG_EXCEPTION_DETAIL;
        RETURN ARRAY[ROW(p_documents[1], nullif(v_relation, ''), SQLSTATE, SQLERRM)::rowdelta.failed];
    END IF;
    RETURN rowdelta.unfit(p_plan, p_documents[:v_half], p_items[:v_half])
        || rowdelta.unfit(p_plan, p_documents[v_half + 1:], p_items[v_half + 1:]);
END
$$;

COMMENT ON FUNCTION rowdelta.unfit(rowdelta.plan_of_mapping, integer[], jsonb[]) IS 'documents that do not fit the mapping';

-- rowdelta.claimed(p_plan, p_source, p_comparison, p_others): documents that ask for a row for which another document of the
-- call asks too, both of them; and the owners that lose one, which are not in it.
--
-- p_others: documents of the call that keep what they have.
CREATE FUNCTION rowdelta.claimed(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_comparison rowdelta.comparison, p_others rowdelta.print[],
    OUT failures rowdelta.failed[], OUT robbed bytea[]
)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v           rowdelta.relation;
    v_claims    integer[];
    v_reference text[];
    v_takers    integer[];
    v_owners    bytea[];
    v_keepers   integer[];
BEGIN
    failures := '{}';
    robbed := '{}';
    FOREACH v IN ARRAY p_plan.relations LOOP
        CONTINUE WHEN v.kind <> 'child' OR NOT v.everywhere;
        v_claims := ARRAY(SELECT s.document FROM (SELECT s.document, count(*) OVER (PARTITION BY s.key) AS claims FROM unnest(p_source) AS s
                                                  WHERE s.relation = v.ix AND NOT s.silent) AS s WHERE s.claims > 1);
        FOR v_reference, v_takers IN
            SELECT t.reference, array_agg(s.document) FROM unnest(p_comparison.changes) AS c
            JOIN unnest(p_comparison.stored) AS t ON t.relation = v.ix AND t.number = c.stored AND t.parent IS NULL
            JOIN unnest(p_source) AS s ON s.relation = v.ix AND s.number = c.source
            WHERE c.relation = v.ix AND c.action = 'moved' GROUP BY t.reference
        LOOP
            v_owners := rowdelta.owners(p_plan.relations, v.ix, jsonb_build_array(to_jsonb(v_reference)));
            robbed := robbed || v_owners;
            v_keepers := ARRAY(SELECT o.document FROM unnest(p_others) AS o WHERE o.key = ANY (v_owners));
            IF v_keepers <> '{}' THEN
                v_claims := v_claims || v_takers || v_keepers;
            END IF;
        END LOOP;
        failures := failures || ARRAY(
            SELECT DISTINCT ROW(d.number, v.name, 'RD006', format(
                'a row of %s, whose key is unique in the table, is claimed by another document too: take it out of one of the two, '
                'or say unique_in = "parent"', v.in_table))::rowdelta.failed
            FROM unnest(v_claims) AS d (number)
            WHERE d.number <> ALL (ARRAY(SELECT f.document FROM unnest(failures) AS f)));
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.claimed(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.comparison, rowdelta.print[]) IS
    'documents that claim one row, and those that lose one';

-- rowdelta.counted_changes(p_changes): how many rows of each relation, by what becomes of them.
CREATE FUNCTION rowdelta.counted_changes(p_changes rowdelta.row_change[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(c.relation || ' ' || c.action, c.rows), '{}')
        FROM (SELECT c.relation, c.action, count(*) AS rows FROM unnest(p_changes) AS c GROUP BY 1, 2) AS c);
END
$$;

COMMENT ON FUNCTION rowdelta.counted_changes(rowdelta.row_change[]) IS 'how many rows, by what becomes of them';

CREATE TYPE rowdelta.covered AS (
    document integer,
    coverage bytea
);

COMMENT ON TYPE rowdelta.covered IS 'what the fingerprints of a document cover';

-- rowdelta.coverage_of(p_relations): what fingerprints cover that leave nothing out.
CREATE FUNCTION rowdelta.coverage_of(p_relations rowdelta.relation[]) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT substr(sha256(string_agg(l.digest, '' ORDER BY l.ix)), 1, 8) FROM unnest(p_relations) AS l);
END
$$;

COMMENT ON FUNCTION rowdelta.coverage_of(rowdelta.relation[]) IS 'what fingerprints cover that leave nothing out';

-- rowdelta.coverages(p_relations, p_source): what the fingerprints of documents cover, in the format of src/fingerprint/coverage.rs;
-- NULL where rows of one list leave out different columns.
CREATE FUNCTION rowdelta.coverages(p_relations rowdelta.relation[], p_source rowdelta.source_row[]) RETURNS rowdelta.covered[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_full bytea := rowdelta.coverage_of(p_relations);
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE facts AS (
            SELECT s.document, s.relation, bool_or(s.silent) AS silent, count(DISTINCT s.kept) FILTER (WHERE NOT s.silent) AS ways,
                   max(s.kept) FILTER (WHERE NOT s.silent) AS kept
            FROM unnest(p_source) AS s WHERE s.silent OR s.kept <> '{}' OR s.relation = 1 OR EXISTS (
                SELECT FROM unnest(p_source) AS o WHERE o.kept <> '{}' AND o.relation = s.relation AND o.document = s.document)
            GROUP BY s.document, s.relation
        ), nothing AS (
            SELECT f.document, f.relation FROM facts AS f WHERE f.silent
            UNION
            -- What is inside, and where that tells rows without a key apart, all that is inside of these.
            SELECT n.document, l.ix FROM nothing AS n JOIN unnest(p_relations) AS o ON o.ix = n.relation
            JOIN unnest(p_relations) AS l ON l.enclosing = n.relation OR l.enclosing = o.enclosing
                AND (p_relations[o.enclosing]).key IS NULL
        ), extents AS (
            SELECT n.document, n.relation, '\xffff'::bytea AS bytes, 1 AS ways FROM nothing AS n
            UNION ALL
            SELECT f.document, f.relation, int2send(cardinality(f.kept)::smallint)
                   || (SELECT string_agg(int2send((k.at - 1)::smallint), '' ORDER BY k.at) FROM unnest(f.kept) AS k (at)) || '\x00',
                   f.ways
            FROM facts AS f WHERE f.kept <> '{}' AND (f.document, f.relation) NOT IN (SELECT n.document, n.relation FROM nothing AS n)
        )
        SELECT ROW(d.document, CASE WHEN max(e.ways) > 1 THEN NULL ELSE
                   v_full || coalesce(string_agg(int2send((e.relation - 1)::smallint) || e.bytes, '' ORDER BY e.relation), '') END
               )::rowdelta.covered
        FROM (SELECT f.document FROM facts AS f WHERE f.relation = 1) AS d LEFT JOIN extents AS e USING (document) GROUP BY d.document);
END
$$;

COMMENT ON FUNCTION rowdelta.coverages(rowdelta.relation[], rowdelta.source_row[]) IS 'what the fingerprints of documents cover';

-- rowdelta.touched(p_source, p_comparison): the documents of which a row is written.
CREATE FUNCTION rowdelta.touched(p_source rowdelta.source_row[], p_comparison rowdelta.comparison) RETURNS integer[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    SELECT ARRAY(
        SELECT s.document FROM unnest(p_comparison.changes) AS c
        JOIN unnest(p_source) AS s ON s.relation = c.relation AND s.number = c.source
        WHERE c.action IN ('added', 'updated', 'moved')
        UNION
        SELECT t.document FROM unnest(p_comparison.changes) AS c
        JOIN unnest(p_comparison.stored) AS t ON t.relation = c.relation AND t.number = c.stored
        WHERE c.action IN ('removed', 'moved') AND t.document IS NOT NULL)
$$;

COMMENT ON FUNCTION rowdelta.touched(rowdelta.source_row[], rowdelta.comparison) IS 'the documents of which a row is written';

-- rowdelta.store(p_plan, p_source, p_trees, p_prints, p_others): compares documents with what is stored, writes the difference
-- and records them. p_others: documents of the call that keep what they have: they are as they should be, or failed.
--
-- Raises:  RD003 somebody else wrote one of them meanwhile; whatever a constraint says. The relation is in the detail.
CREATE FUNCTION rowdelta.store(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_trees rowdelta.node[],
    p_prints rowdelta.print[], p_others rowdelta.print[]
) RETURNS rowdelta.done
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_done       rowdelta.done := ROW('{}', '{}', '{}', NULL);
    v_source     rowdelta.source_row[] := p_source;
    v_comparison rowdelta.comparison;
    v_failures   rowdelta.failed[];
    v_robbed     bytea[];
    v_failed     integer[];
    v_states     rowdelta.print[];
    v_touched    integer[];
    v_new        integer[];
    v_reason     text;
BEGIN
    -- Read before the rows are: who records one of them from here on is noticed at the end.
    v_states := ARRAY(SELECT ROW(NULL, st.key, st.fingerprint, NULL, st.raw)::rowdelta.print
                      FROM rowdelta.states(p_plan.mapping, ARRAY(SELECT s.key FROM unnest(p_source) AS s WHERE s.relation = 1)) AS st);
    LOOP
        v_comparison := rowdelta.compared(p_plan, v_source, p_trees);
        SELECT c.failures, c.robbed INTO v_failures, v_robbed
        FROM rowdelta.claimed(p_plan, v_source, v_comparison, p_others) AS c;
        v_failed := ARRAY(SELECT f.document FROM unnest(v_failures) AS f);
        IF v_failures = '{}' THEN
            v_reason := rowdelta.too_much(p_plan, v_comparison);
            EXIT WHEN v_reason IS NULL;
            v_done.because := v_reason;
            -- Those that would delete rows are withheld, all of them.
            v_failed := ARRAY(SELECT DISTINCT t.document FROM unnest(v_comparison.changes) AS c
                              JOIN unnest(v_comparison.stored) AS t ON t.relation = c.relation AND t.number = c.stored
                              WHERE c.action = 'removed');
            -- Below a row that comes from elsewhere rows are of no document yet.
            IF array_position(v_failed, NULL) IS NOT NULL THEN
                v_failed := ARRAY(SELECT s.document FROM unnest(v_source) AS s WHERE s.relation = 1);
            END IF;
            v_done.documents := v_done.documents
                || ARRAY(SELECT ROW(d.number, 'withheld', 0)::rowdelta.stored_document FROM unnest(v_failed) AS d (number));
        END IF;
        v_done.failures := v_done.failures || v_failures;
        v_source := rowdelta.without_documents(v_source, v_failed);
    END LOOP;
    IF NOT EXISTS (SELECT FROM unnest(v_source) AS s WHERE s.relation = 1) THEN
        RETURN v_done;
    END IF;
    PERFORM rowdelta.applied(p_plan, v_source, v_comparison);
    PERFORM rowdelta.note_history(p_plan, v_source, v_comparison);
    PERFORM rowdelta.unsettle(p_plan.mapping, v_robbed);
    PERFORM rowdelta.record(
        p_plan.mapping, array_agg(f.key ORDER BY f.key), array_agg(st.key IS NULL ORDER BY f.key),
        array_agg(st.fingerprint ORDER BY f.key),
        -- The engine's hash of a document's bytes stays while its rows do.
        array_agg(CASE WHEN octet_length(st.raw) = 16 AND st.fingerprint = f.fingerprint THEN st.raw ELSE f.raw END
                  ORDER BY f.key),
        array_agg(f.fingerprint ORDER BY f.key), array_agg(f.recorded ORDER BY f.key), array_agg(d.skipped = 0 ORDER BY f.key),
        array_agg(c.coverage ORDER BY f.key))
    FROM (SELECT s.document, sum(s.skipped) AS skipped FROM unnest(v_source) AS s GROUP BY s.document) AS d
    JOIN unnest(rowdelta.coverages(p_plan.relations, v_source)) AS c USING (document)
    JOIN unnest(p_prints) AS f USING (document)
    LEFT JOIN unnest(v_states) AS st ON st.key = f.key
    HAVING count(*) > 0;
    PERFORM rowdelta.remember(p_plan, v_source, p_prints, v_states);
    v_touched := rowdelta.touched(v_source, v_comparison);
    v_new := ARRAY(SELECT s.document FROM unnest(v_comparison.changes) AS c JOIN unnest(v_source) AS s
                   ON s.relation = 1 AND s.number = c.source WHERE c.relation = 1 AND c.action = 'added');
    v_done.counts := rowdelta.counted_changes(v_comparison.changes);
    v_done.documents := v_done.documents || ARRAY(
        SELECT ROW(d.document, CASE WHEN d.document = ANY (v_new) THEN 'new' WHEN d.document = ANY (v_touched) THEN 'changed'
                                    ELSE 'unchanged' END, d.skipped)::rowdelta.stored_document
        FROM (SELECT s.document, sum(s.skipped)::integer AS skipped FROM unnest(v_source) AS s GROUP BY 1) AS d);
    RETURN v_done;
END
$$;

COMMENT ON FUNCTION rowdelta.store(
    rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.node[], rowdelta.print[], rowdelta.print[]) IS
    'compares documents with what is stored, and writes the difference';

-- rowdelta.both(p_one, p_other): what became of documents, and of others.
CREATE FUNCTION rowdelta.both(p_one rowdelta.done, p_other rowdelta.done) RETURNS rowdelta.done
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT ROW(p_one.documents || p_other.documents,
                   (SELECT coalesce(jsonb_object_agg(c.key, c.rows), '{}')
                    FROM (SELECT e.key, sum(e.value::bigint) AS rows
                          FROM (SELECT * FROM jsonb_each_text(p_one.counts) UNION ALL SELECT * FROM jsonb_each_text(p_other.counts)) AS e
                          GROUP BY e.key) AS c),
                   p_one.failures || p_other.failures, coalesce(p_one.because, p_other.because))::rowdelta.done);
END
$$;

COMMENT ON FUNCTION rowdelta.both(rowdelta.done, rowdelta.done) IS 'what became of documents, and of others';

-- rowdelta.trees_of(p_source, p_trees): of the hashes of rows those of these rows.
CREATE FUNCTION rowdelta.trees_of(p_source rowdelta.source_row[], p_trees rowdelta.node[]) RETURNS rowdelta.node[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    SELECT ARRAY(SELECT t FROM unnest(p_trees) AS t JOIN unnest(p_source) AS s ON s.relation = t.relation AND s.number = t.number)
$$;

COMMENT ON FUNCTION rowdelta.trees_of(rowdelta.source_row[], rowdelta.node[]) IS 'the hashes of some rows';

-- rowdelta.refused(p_plan, p_source, p_trees, p_prints, p_others): the documents that cannot be stored, found by
-- halving, and why. Nothing is written.
CREATE FUNCTION rowdelta.refused(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_trees rowdelta.node[],
    p_prints rowdelta.print[], p_others rowdelta.print[]
) RETURNS rowdelta.failed[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_documents integer[] := ARRAY(SELECT s.document FROM unnest(p_source) AS s WHERE s.relation = 1 ORDER BY s.key);
    v_half      integer[] := v_documents[:cardinality(v_documents) / 2];
    v_relation  text;
    v_source    rowdelta.source_row[];
    v_failures  rowdelta.failed[];
BEGIN
    PERFORM rowdelta.store(p_plan, p_source, p_trees, p_prints, p_others);
    RAISE EXCEPTION 'taken back' USING ERRCODE = 'RD009';
EXCEPTION WHEN SQLSTATE 'RD009' THEN
    RETURN '{}';
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_relation = PG_EXCEPTION_DETAIL;
    IF SQLSTATE IN ('RD001', 'RD002', 'RD004', 'RD005') THEN
        RAISE;
    END IF;
    IF cardinality(v_documents) = 1 THEN
        RETURN ARRAY[ROW(v_documents[1], nullif(v_relation, ''), SQLSTATE, SQLERRM)::rowdelta.failed];
    END IF;
    v_source := ARRAY(SELECT s FROM unnest(p_source) AS s WHERE s.document = ANY (v_half));
    v_failures := rowdelta.refused(p_plan, v_source, rowdelta.trees_of(v_source, p_trees),
                                   ARRAY(SELECT f FROM unnest(p_prints) AS f WHERE f.document = ANY (v_half)), p_others);
    v_source := ARRAY(SELECT s FROM unnest(p_source) AS s WHERE s.document <> ALL (v_half));
    RETURN v_failures || rowdelta.refused(p_plan, v_source, rowdelta.trees_of(v_source, p_trees),
                                          ARRAY(SELECT f FROM unnest(p_prints) AS f WHERE f.document <> ALL (v_half)), p_others);
END
$$;

COMMENT ON FUNCTION rowdelta.refused(
    rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.node[], rowdelta.print[], rowdelta.print[]) IS
    'documents that cannot be stored, and why';

-- rowdelta.stored(p_plan, p_source, p_trees, p_prints, p_others, p_tries, p_refused): as rowdelta.store; what may pass is
-- tried again, without the documents that are refused by themselves. The others stay together, so that rows move between
-- them; if they cannot be stored together either, they are halved until those that are stored stand alone. p_refused: whether
-- a constraint refused the last try.
CREATE FUNCTION rowdelta.stored(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_trees rowdelta.node[],
    p_prints rowdelta.print[], p_others rowdelta.print[],
    p_tries integer DEFAULT 8, p_refused boolean DEFAULT false
) RETURNS rowdelta.done
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_documents integer[] := ARRAY(SELECT s.document FROM unnest(p_source) AS s WHERE s.relation = 1 ORDER BY s.key);
    v_relation  text;
    v_failures  rowdelta.failed[];
    v_half      integer[];
    v_one       rowdelta.done;
    v_others    rowdelta.print[];
BEGIN
    RETURN rowdelta.store(p_plan, p_source, p_trees, p_prints, p_others);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_relation = PG_EXCEPTION_DETAIL;
    IF SQLSTATE IN ('RD001', 'RD002', 'RD004', 'RD005') THEN
        RAISE;
    END IF;
    -- A key that is taken may be that of the document itself, which someone else stored or deleted since it was looked
    -- up: once more, unless that was just done.
    IF p_tries > 1 AND (SQLSTATE IN ('RD003', '40P01')
                        OR SQLSTATE IN ('23503', '23505') AND NOT p_refused AND cardinality(v_documents) = 1) THEN
        -- Sessions in each other's way, which hold nothing by now, do not start over in step.
        PERFORM pg_sleep(random() * 0.02 * (9 - p_tries));
        RETURN rowdelta.stored(p_plan, p_source, p_trees, p_prints, p_others, p_tries - 1, SQLSTATE IN ('23503', '23505'));
    END IF;
    IF cardinality(v_documents) = 1 THEN
        RETURN ROW('{}', '{}', ARRAY[ROW(v_documents[1], nullif(v_relation, ''), SQLSTATE, SQLERRM)::rowdelta.failed], NULL)::rowdelta.done;
    END IF;
    v_failures := rowdelta.refused(p_plan, p_source, p_trees, p_prints, p_others);
    v_half := CASE WHEN v_failures <> '{}' THEN ARRAY(SELECT f.document FROM unnest(v_failures) AS f)
                   ELSE v_documents[:cardinality(v_documents) / 2] END;
    v_one := CASE WHEN v_failures <> '{}' THEN ROW('{}', '{}', v_failures, NULL)::rowdelta.done ELSE
        rowdelta.stored(p_plan, ARRAY(SELECT s FROM unnest(p_source) AS s WHERE s.document = ANY (v_half)), p_trees, p_prints, p_others)
        END;
    IF v_documents <@ v_half THEN
        RETURN v_one;
    END IF;
    v_others := p_others || ARRAY(SELECT f FROM unnest(p_prints) AS f WHERE f.document = ANY (v_half));
    RETURN rowdelta.both(v_one, rowdelta.stored(
        p_plan, rowdelta.without_documents(p_source, v_half), p_trees, p_prints, v_others));
END
$$;

COMMENT ON FUNCTION rowdelta.stored(
    rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.node[], rowdelta.print[], rowdelta.print[], integer, boolean) IS
    'as store, narrowing down to the documents that are refused';

-- rowdelta.others(p_documents, p_items, p_but): documents, with their numbers, but for some.
CREATE FUNCTION rowdelta.others(p_documents integer[], p_items jsonb[], p_but integer[], OUT documents integer[], OUT items jsonb[])
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
BEGIN
    SELECT coalesce(array_agg(d.document ORDER BY d.document), '{}'), coalesce(array_agg(d.item ORDER BY d.document), '{}')
    INTO documents, items
    FROM unnest(p_documents, p_items) AS d (document, item) LEFT JOIN unnest(p_but) AS k (document) USING (document)
    WHERE k.document IS NULL;
END
$$;

COMMENT ON FUNCTION rowdelta.others(integer[], jsonb[], integer[]) IS 'documents, with their numbers, but for some';

-- rowdelta.without_documents(p_rows, p_documents): rows of all documents but some.
CREATE FUNCTION rowdelta.without_documents(p_rows rowdelta.source_row[], p_documents integer[]) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
BEGIN
    IF p_documents = '{}' THEN
        RETURN p_rows;
    END IF;
    RETURN ARRAY(SELECT s FROM unnest(p_rows) AS s LEFT JOIN unnest(p_documents) AS k (document) ON k.document = s.document
                 WHERE k.document IS NULL);
END
$$;

COMMENT ON FUNCTION rowdelta.without_documents(rowdelta.source_row[], integer[]) IS 'rows of all documents but some';

-- rowdelta.run_documents(p_plan, p_documents, p_items, p_raws, p_seen, p_unread): syncs documents of a call.
--
-- p_documents, p_items: the numbers in the call of those that are looked at, and these. p_raws: of each document of the call
-- what stands for its text. p_seen: those whose text is as it was. p_unread: those that could not be read.
CREATE FUNCTION rowdelta.run_documents(
    p_plan rowdelta.plan_of_mapping, p_documents integer[], p_items jsonb[], p_raws bytea[], p_seen rowdelta.print[],
    p_unread rowdelta.failed[] DEFAULT '{}'
) RETURNS rowdelta.done
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_done      rowdelta.done := ROW('{}', '{}', p_unread, NULL);
    v_more      rowdelta.done;
    v_documents integer[] := p_documents;
    v_items     jsonb[] := p_items;
    v_shreds    rowdelta.shreds;
    v_source    rowdelta.source_row[] := '{}';
    v_trees     rowdelta.node[];
    v_prints    rowdelta.print[] := '{}';
    v_known     integer[];
    v_seen      rowdelta.print[];
    v_same      rowdelta.print[];
BEGIN
    IF v_documents <> '{}' THEN
        BEGIN
            v_shreds := rowdelta.shredded(p_plan, v_documents, v_items);
            v_source := rowdelta.chosen(p_plan.relations, v_shreds.rows);
        EXCEPTION WHEN OTHERS THEN
            -- Where none is, somebody else was in the way.
            v_done.failures := v_done.failures || rowdelta.unfit(p_plan, v_documents, v_items);
            SELECT o.documents, o.items INTO v_documents, v_items FROM rowdelta.others(
                v_documents, v_items, ARRAY(SELECT f.document FROM unnest(v_done.failures) AS f)) AS o;
            v_shreds := rowdelta.shredded(p_plan, v_documents, v_items);
            v_source := rowdelta.chosen(p_plan.relations, v_shreds.rows);
        END;
        v_done.counts := v_shreds.inserted;
        v_trees := rowdelta.trees(p_plan.relations, v_source);
        v_prints := ARRAY(SELECT ROW(f.document, f.key, f.fingerprint, f.recorded, w.raw)::rowdelta.print
                          FROM unnest(rowdelta.prints(p_plan.relations, v_source, v_trees)) AS f
                          JOIN unnest(p_raws) WITH ORDINALITY AS w (raw, document) USING (document));
    END IF;
    v_more := rowdelta.repeats(v_prints || p_seen);
    v_done := rowdelta.both(v_done, v_more);
    v_known := ARRAY(SELECT d.document FROM unnest(v_more.documents) AS d) || ARRAY(SELECT f.document FROM unnest(v_more.failures) AS f);
    v_seen := rowdelta.but(p_seen, v_known);
    v_source := rowdelta.without_documents(v_source, v_known);
    v_same := rowdelta.unchanged(p_plan, v_source, v_prints);
    PERFORM rowdelta.respell(p_plan, v_source, rowdelta.but(v_prints, v_known), v_same);
    v_seen := v_seen || v_same;
    v_done.documents := v_done.documents || ARRAY(SELECT ROW(s.document, 'unchanged', 0)::rowdelta.stored_document FROM unnest(v_seen) AS s);
    v_source := rowdelta.without_documents(v_source, ARRAY(SELECT s.document FROM unnest(v_same) AS s));
    IF v_source = '{}' THEN
        RETURN v_done;
    END IF;
    v_more := rowdelta.stored(p_plan, v_source, v_trees, v_prints, v_seen);
    -- One that is as it should be may fail after all: another asks for a row of it. Once is enough.
    v_more.failures := ARRAY(SELECT DISTINCT ON (f.document) ROW(f.document, f.relation, f.sqlstate, f.message)::rowdelta.failed
                             FROM unnest(v_more.failures) WITH ORDINALITY AS f ORDER BY f.document, f.ordinality);
    v_done := rowdelta.both(v_done, v_more);
    v_done.documents := ARRAY(SELECT d FROM unnest(v_done.documents) AS d
                              WHERE d.document <> ALL (ARRAY(SELECT f.document FROM unnest(v_more.failures) AS f)));
    RETURN v_done;
END
$$;

COMMENT ON FUNCTION rowdelta.run_documents(
    rowdelta.plan_of_mapping, integer[], jsonb[], bytea[], rowdelta.print[], rowdelta.failed[]) IS 'syncs documents of a call';

-- rowdelta.but(p_prints, p_documents): fingerprints of all documents but some.
CREATE FUNCTION rowdelta.but(p_prints rowdelta.print[], p_documents integer[]) RETURNS rowdelta.print[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    SELECT ARRAY(SELECT f FROM unnest(p_prints) AS f LEFT JOIN unnest(p_documents) AS k (document) ON k.document = f.document
                 WHERE k.document IS NULL)
$$;

COMMENT ON FUNCTION rowdelta.but(rowdelta.print[], integer[]) IS 'fingerprints of all documents but some';

-- rowdelta.repeats(p_prints): documents that stand more than once in a call. Of equal ones the first counts, the others are
-- repeats; of differing ones the first counts, and the others fail.
CREATE FUNCTION rowdelta.repeats(p_prints rowdelta.print[]) RETURNS rowdelta.done
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT ROW(coalesce(array_agg(ROW(r.document, 'repeated', 0)::rowdelta.stored_document) FILTER (WHERE r.is_equal), '{}'), '{}'::jsonb,
               coalesce(array_agg(ROW(r.document, NULL, NULL, format('stands twice with different content: first as document %s', r.first)
                                      )::rowdelta.failed) FILTER (WHERE NOT r.is_equal), '{}'), NULL)::rowdelta.done
    FROM (SELECT f.document, f.fingerprint = first_value(f.fingerprint) OVER w AS is_equal, first_value(f.document) OVER w AS first
          FROM unnest(p_prints) AS f WINDOW w AS (PARTITION BY f.key ORDER BY f.document)) AS r
    WHERE r.document <> r.first
$$;

COMMENT ON FUNCTION rowdelta.repeats(rowdelta.print[]) IS 'documents that stand more than once in a call';

-- rowdelta.there(p_plan, p_roots): those of some root rows whose keys are stored.
CREATE FUNCTION rowdelta.there(p_plan rowdelta.plan_of_mapping, p_roots rowdelta.source_row[]) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v      rowdelta.relation := p_plan.relations[1];
    v_keys bytea[] := '{}';
BEGIN
    IF p_roots <> '{}' THEN
        EXECUTE format('SELECT array_agg(%s) FROM %s AS t WHERE %s AND $1 IS NULL AND $2 IS NULL',
                       rowdelta.key_sql(v), v.tbl, rowdelta.keyed_among_sql(v))
        INTO v_keys USING NULL::integer, NULL::integer, rowdelta.keys_of(v, p_roots);
    END IF;
    RETURN ARRAY(SELECT s FROM unnest(p_roots) AS s JOIN unnest(v_keys) AS k (key) ON k.key = s.key);
END
$$;

COMMENT ON FUNCTION rowdelta.there(rowdelta.plan_of_mapping, rowdelta.source_row[]) IS 'root rows whose keys are stored';

-- rowdelta.emptied(p_plan): the relations whose tables are empty: truncated, perhaps, or lost in a crash.
CREATE FUNCTION rowdelta.emptied(p_plan rowdelta.plan_of_mapping) RETURNS integer[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation;
    v_rows  boolean;
    v_empty integer[] := '{}';
BEGIN
    FOREACH v IN ARRAY p_plan.relations LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', v.tbl) INTO v_rows;
        IF NOT v_rows THEN
            v_empty := v_empty || v.ix;
        END IF;
    END LOOP;
    RETURN v_empty;
END
$$;

COMMENT ON FUNCTION rowdelta.emptied(rowdelta.plan_of_mapping) IS 'relations whose tables are empty';

-- rowdelta.lost(p_recorded, p_empty): whether of what is recorded of a document anything was in one of these relations.
CREATE FUNCTION rowdelta.lost(p_recorded bytea, p_empty integer[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM unnest(p_empty) AS e (ix) WHERE octet_length(p_recorded) > 2 + (e.ix - 1) / 8
                   AND get_byte(p_recorded, 2 + (e.ix - 1) / 8) & (1 << (e.ix - 1) % 8) <> 0)
$$;

COMMENT ON FUNCTION rowdelta.lost(bytea, integer[]) IS 'whether rows of a document were lost with their table';

-- rowdelta.keyed_roots_sql(p_root, p_values, p_from): SQL of root rows of which only the key is made, as one array.
--
-- p_values: SQL of the JSON of each column of the key, over p_from, `e`, which has a column `document`, too.
CREATE FUNCTION rowdelta.keyed_roots_sql(p_root rowdelta.relation, p_values text[], p_from text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_root;
    v_cells text;
    v_forms text;
    v_key   text;
BEGIN
    SELECT string_agg(format('%s AS c%s', rowdelta.value_sql(v.columns[k.at], p_values[k.ordinality], (v.columns[k.at]).name || ': '), k.at), ', '),
           string_agg(format('%s AS f%s', rowdelta.form_sql(v.columns[k.at], 'c.c' || k.at), k.at), ', '),
           string_agg(rowdelta.cell_sql('f.f' || k.at), ' || ' ORDER BY k.ordinality)
    INTO v_cells, v_forms, v_key FROM unnest(v.key_at) WITH ORDINALITY AS k (at);
    RETURN format(
        'SELECT coalesce(array_agg(ROW(1, f.document, f.document, NULL, NULL, ARRAY[%s], NULL, ''{}'', %s, NULL, 0, false)'
        '::rowdelta.source_row), ''{}'') FROM (SELECT c.*, %s FROM (SELECT e.document, %s FROM %s OFFSET 0) AS c OFFSET 0) AS f',
        (SELECT string_agg(CASE WHEN i = ANY (v.key_at) THEN format('f.c%s::text', i) ELSE 'NULL' END, ', ' ORDER BY i)
         FROM generate_series(1, cardinality(v.columns)) AS i),
        v_key, v_forms, v_cells, p_from);
END
$$;

COMMENT ON FUNCTION rowdelta.keyed_roots_sql(rowdelta.relation, text[], text) IS 'SQL of root rows of which only the key is made';

-- rowdelta.unchanged(p_plan, p_source, p_prints): the documents that are as they should be, going by what is recorded, and of
-- which the root row is there; with the fingerprint that is recorded. Of p_prints the fingerprint counts, and what stands for
-- the text where that is not known. Of p_source the keys of root rows do.
CREATE FUNCTION rowdelta.unchanged(p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_prints rowdelta.print[])
    RETURNS rowdelta.print[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_empty  integer[] := rowdelta.emptied(p_plan);
    v_roots  rowdelta.source_row[];
    v_states rowdelta.print[];
BEGIN
    SELECT coalesce(array_agg(s), '{}'), coalesce(array_agg(ROW(s.document, st.key, st.fingerprint, NULL, st.raw)::rowdelta.print), '{}')
    INTO v_roots, v_states
    FROM unnest(p_prints) AS f
    JOIN unnest(p_source) AS s ON s.relation = 1 AND s.document = f.document
    JOIN rowdelta.states(p_plan.mapping, ARRAY(SELECT DISTINCT f.key FROM unnest(p_prints) AS f)) AS st ON st.key = f.key
    WHERE st.settled AND NOT st.absent AND CASE WHEN f.fingerprint IS NULL THEN st.raw = f.raw ELSE st.fingerprint = f.fingerprint END
      AND (v_empty = '{}' OR NOT rowdelta.lost(st.relations, v_empty));
    RETURN ARRAY(SELECT s FROM unnest(rowdelta.there(p_plan, v_roots)) AS t JOIN unnest(v_states) AS s USING (document));
END
$$;

COMMENT ON FUNCTION rowdelta.unchanged(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.print[]) IS
    'documents that are as they should be, going by what is recorded';

-- rowdelta.is_text(p_raw): whether a raw fingerprint is that of a text given to sync_texts.
--
-- It has 17 bytes, the first of them `t`; that of a document given as jsonb has `s`, and the engine's own, of bytes that only
-- it sees, are 16.
CREATE FUNCTION rowdelta.is_text(p_raw bytea) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN octet_length(p_raw) = 17 AND get_byte(p_raw, 0) = 116;
END
$$;

COMMENT ON FUNCTION rowdelta.is_text(bytea) IS 'whether a raw fingerprint is that of a text';

-- rowdelta.remember(p_plan, p_source, p_prints, p_before): by which text documents are known from now on. p_before: what was
-- recorded of them.
CREATE FUNCTION rowdelta.remember(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_prints rowdelta.print[], p_before rowdelta.print[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_old bytea[] := ARRAY(SELECT b.raw FROM unnest(p_before) AS b WHERE rowdelta.is_text(b.raw));
    v_new rowdelta.print[] := ARRAY(SELECT f FROM unnest(p_prints) AS f WHERE rowdelta.is_text(f.raw));
    v_at  integer[] := (p_plan.relations[1]).key_at;
BEGIN
    IF v_old <> '{}' THEN
        DELETE FROM rowdelta.spelling t WHERE t.mapping = p_plan.mapping AND t.hash = ANY (v_old);
    END IF;
    IF v_new <> '{}' THEN
        -- Another session may be given the same text.
        INSERT INTO rowdelta.spelling (mapping, hash, key, cells)
        SELECT p_plan.mapping, f.raw, s.key, ARRAY(SELECT CASE WHEN i.at = ANY (v_at) THEN s.cells[i.at] END
                                                   FROM generate_series(1, (SELECT max(k.at) FROM unnest(v_at) AS k (at))) AS i (at) ORDER BY i.at)
        FROM unnest(v_new) AS f JOIN unnest(p_source) AS s ON s.relation = 1 AND s.document = f.document
        ORDER BY f.raw ON CONFLICT DO NOTHING;
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.remember(
    rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.print[], rowdelta.print[]) IS 'by which text documents are known';

-- rowdelta.respell(p_plan, p_source, p_prints, p_same): records the text of documents that are as they were in other words.
--
-- Once: of a feed that respells a document every night nothing is written. The engine's hash of its bytes stays.
CREATE FUNCTION rowdelta.respell(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_prints rowdelta.print[], p_same rowdelta.print[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v_before rowdelta.print[];
    v_now    rowdelta.print[];
BEGIN
    IF p_same = '{}' THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(ROW(NULL, st.key, st.fingerprint, NULL, st.raw)::rowdelta.print), '{}'), coalesce(array_agg(f), '{}')
    INTO v_before, v_now
    FROM rowdelta.states(p_plan.mapping, ARRAY(SELECT s.key FROM unnest(p_same) AS s)) AS st
    JOIN unnest(p_prints) AS f ON f.key = st.key AND f.fingerprint = st.fingerprint
    WHERE NOT st.respelled AND octet_length(st.raw) IS DISTINCT FROM 16;
    IF v_now = '{}' THEN
        RETURN;
    END IF;
    PERFORM rowdelta.renew_raw(p_plan.mapping, array_agg(f.key ORDER BY f.key), array_agg(f.fingerprint ORDER BY f.key),
                               array_agg(f.raw ORDER BY f.key)) FROM unnest(v_now) AS f;
    PERFORM rowdelta.remember(p_plan, p_source, v_now, v_before);
END
$$;

COMMENT ON FUNCTION rowdelta.respell(
    rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.print[], rowdelta.print[]) IS 'records another text of documents';

-- rowdelta.seen(p_plan, p_documents, p_raws): the documents of a JSON array whose text is as it was when they were recorded by
-- these functions.
--
-- Only their keys are made. Where that fails nothing is known of any of them.
CREATE FUNCTION rowdelta.seen(p_plan rowdelta.plan_of_mapping, p_documents jsonb, p_raws bytea[]) RETURNS rowdelta.print[]
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v       rowdelta.relation := p_plan.relations[1];
    v_roots rowdelta.source_row[];
BEGIN
    IF EXISTS (SELECT FROM unnest(v.key_at) AS k (at) WHERE (v.columns[k.at]).lookup IS NOT NULL
               OR jsonb_array_length((v.columns[k.at]).paths) > 1) THEN
        RETURN '{}';
    END IF;
    EXECUTE rowdelta.keyed_roots_sql(
        v, ARRAY(SELECT rowdelta.found_sql(v.columns[k.at]) FROM unnest(v.key_at) WITH ORDINALITY AS k (at) ORDER BY k.ordinality),
        '(SELECT a.document, CASE WHEN jsonb_typeof(a.item) = ''object'' THEN a.item ELSE rowdelta.refuse(''expected an object'')::jsonb END AS item '
        'FROM (SELECT d.at AS document, $1 -> d.at - 1 AS item FROM generate_series(1, jsonb_array_length($1)) AS d (at) OFFSET 0) AS a) AS e')
    INTO v_roots USING p_documents;
    RETURN rowdelta.unchanged(p_plan, v_roots, ARRAY(
        SELECT ROW(s.document, s.key, NULL, NULL, w.raw)::rowdelta.print FROM unnest(v_roots) AS s
        JOIN unnest(p_raws) WITH ORDINALITY AS w (raw, document) ON w.document = s.document));
EXCEPTION WHEN OTHERS THEN
    RETURN '{}';
END
$$;

COMMENT ON FUNCTION rowdelta.seen(rowdelta.plan_of_mapping, jsonb, bytea[]) IS 'documents whose text is as it was';

-- rowdelta.seen_texts(p_plan, p_raws): the documents whose text, for which these stand, is as it was when they were recorded.
CREATE FUNCTION rowdelta.seen_texts(p_plan rowdelta.plan_of_mapping, p_raws bytea[]) RETURNS rowdelta.print[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_roots  rowdelta.source_row[];
    v_prints rowdelta.print[];
BEGIN
    SELECT coalesce(array_agg(ROW(1, w.document, w.document, NULL, NULL, t.cells, NULL, '{}', t.key, NULL, 0, false)::rowdelta.source_row), '{}'),
           coalesce(array_agg(ROW(w.document, t.key, NULL, NULL, w.raw)::rowdelta.print), '{}')
    INTO v_roots, v_prints
    FROM unnest(p_raws) WITH ORDINALITY AS w (raw, document)
    JOIN rowdelta.spelling t ON t.mapping = p_plan.mapping AND t.hash = w.raw;
    RETURN CASE WHEN v_prints = '{}' THEN '{}' ELSE rowdelta.unchanged(p_plan, v_roots, v_prints) END;
END
$$;

COMMENT ON FUNCTION rowdelta.seen_texts(rowdelta.plan_of_mapping, bytea[]) IS 'documents whose text is as it was';

-- rowdelta.hold_mapping(p_mapping): keeps takeovers of the lease, and merges, waiting to the end of the transaction.
CREATE FUNCTION rowdelta.hold_mapping(p_mapping integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('rowdelta'), p_mapping);
    PERFORM rowdelta.hold_base(p_mapping);
END
$$;

COMMENT ON FUNCTION rowdelta.hold_mapping(integer) IS 'keeps takeovers and merges waiting';

-- rowdelta.unseen(p_count, p_seen): the numbers of those of so many documents that were not seen.
CREATE FUNCTION rowdelta.unseen(p_count integer, p_seen rowdelta.print[]) RETURNS integer[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT ARRAY(SELECT generate_series(1, p_count) EXCEPT SELECT s.document FROM unnest(p_seen) AS s ORDER BY 1)
$$;

COMMENT ON FUNCTION rowdelta.unseen(integer, rowdelta.print[]) IS 'which documents were not seen';

-- rowdelta.run_array(p_plan, p_documents): syncs the documents of a JSON array.
CREATE FUNCTION rowdelta.run_array(p_plan rowdelta.plan_of_mapping, p_documents jsonb) RETURNS rowdelta.done
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_digest bytea := p_plan.digest;
    v_raws   bytea[] := '{}';
    v_seen   rowdelta.print[];
    v_unseen integer[];
    v_items  jsonb[] := '{}';
    v_at     integer;
BEGIN
    PERFORM rowdelta.hold_mapping(p_plan.mapping);
    -- A query would be planned with a copy of all documents in it.
    FOR v_at IN 0 .. jsonb_array_length(p_documents) - 1 LOOP
        v_raws := v_raws || ('\x73'::bytea || substr(sha256(v_digest || convert_to((p_documents -> v_at)::text, 'UTF8')), 1, 16));
    END LOOP;
    v_seen := rowdelta.seen(p_plan, p_documents, v_raws);
    v_unseen := rowdelta.unseen(cardinality(v_raws), v_seen);
    FOREACH v_at IN ARRAY v_unseen LOOP
        v_items := v_items || (p_documents -> v_at - 1);
    END LOOP;
    RETURN rowdelta.run_documents(p_plan, v_unseen, v_items, v_raws, v_seen);
END
$$;

COMMENT ON FUNCTION rowdelta.run_array(rowdelta.plan_of_mapping, jsonb) IS 'syncs the documents of a JSON array';

-- rowdelta.read_texts(p_documents, p_texts): documents, with their numbers, from their texts; and which of these are not JSON.
CREATE FUNCTION rowdelta.read_texts(
    p_documents integer[], p_texts text[], OUT documents integer[], OUT items jsonb[], OUT failures rowdelta.failed[]
)
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_detail text;
BEGIN
    failures := '{}';
    items := ARRAY(SELECT coalesce(p_texts[d.at], 'null')::jsonb FROM generate_subscripts(p_texts, 1) AS d (at) ORDER BY d.at);
    documents := p_documents;
EXCEPTION WHEN OTHERS THEN
    -- One of them is none: one by one.
    documents := '{}';
    items := '{}';
    FOR v_at IN 1 .. cardinality(p_texts) LOOP
        BEGIN
            items := items || coalesce(p_texts[v_at], 'null')::jsonb;
            documents := documents || p_documents[v_at];
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
            failures := failures || ROW(p_documents[v_at], NULL, 'RD006', concat_ws(
                ': ', CASE SQLSTATE WHEN '22P02' THEN 'not JSON' ELSE SQLERRM END, nullif(rtrim(v_detail, '.'), '')))::rowdelta.failed;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.read_texts(integer[], text[]) IS 'documents from their texts';

-- sync(mapping, document, rows_max, percent_max)
--
-- Stores one document: writes what differs from what is stored, and nothing else. A row for each relation, with the number
-- of its rows by what became of them, and what became of the document: new, changed or unchanged.
--
-- Locks:   the rows that are written; what is recorded of the document.
-- Raises:  RD001 unknown mapping; RD005 it is not for the SQL functions; RD006 the document does not fit it; RD003 it was
--          written by someone else meanwhile, again and again; what a constraint says. The relation is in the detail.
-- Example: SELECT * FROM rowdelta.sync('shop', '{"number": "A1", "customer": {"name": "Ada"}}');
CREATE FUNCTION rowdelta.sync(
    mapping text, document jsonb, rows_max bigint DEFAULT 10000, percent_max numeric DEFAULT 20,
    path name[] DEFAULT pg_catalog.current_schemas(false)
)
    RETURNS TABLE (relation text, added bigint, updated bigint, moved bigint, removed bigint, unchanged bigint, status text)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan   rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path, rows_max, percent_max);
    v_done   rowdelta.done;
    v_failed rowdelta.failed;
BEGIN
    v_done := rowdelta.run_array(v_plan, jsonb_build_array(document));
    v_failed := v_done.failures[1];
    IF (v_done.documents[1]).status = 'withheld' THEN
        RAISE EXCEPTION '%', v_done.because USING ERRCODE = 'RD008';
    END IF;
    IF v_failed.document IS NOT NULL THEN
        RAISE EXCEPTION '%', concat_ws(': ', v_failed.relation, v_failed.message)
            USING ERRCODE = coalesce(v_failed.sqlstate, 'RD006'), DETAIL = coalesce(v_failed.relation, '');
    END IF;
    RETURN QUERY SELECT c.relation, c.added, c.updated, c.moved, c.removed, c.unchanged, (v_done.documents[1]).status
                 FROM rowdelta.counts_of(v_plan, v_done.counts) AS c;
END
$$;

COMMENT ON FUNCTION rowdelta.sync(text, jsonb, bigint, numeric, name[]) IS 'stores one document: writes what differs, and nothing else';

-- rowdelta.counts_of(p_plan, p_counts): the counts of relations, and of catalogues, as rows.
CREATE FUNCTION rowdelta.counts_of(p_plan rowdelta.plan_of_mapping, p_counts jsonb)
    RETURNS TABLE (relation text, added bigint, updated bigint, moved bigint, removed bigint, unchanged bigint, tbl text)
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT l.name, c.n[1], c.n[2], c.n[3], c.n[4], c.n[5], l.tbl
    FROM (SELECT r.ix, r.ix::text AS label, r.name, concat_ws('.', r.in_schema, r.in_table) AS tbl FROM unnest(p_plan.relations) AS r
          UNION ALL SELECT 100000 + l.ordinality, l.name, l.name, concat_ws('.', l.in_schema, l.in_table)
          FROM unnest(p_plan.lookups) WITH ORDINALITY AS l) AS l
    CROSS JOIN LATERAL (SELECT ARRAY(
        SELECT coalesce((p_counts ->> (l.label || ' ' || a.action))::bigint, 0)
        FROM unnest(ARRAY['added', 'updated', 'moved', 'removed', 'unchanged']) WITH ORDINALITY AS a (action, at) ORDER BY a.at)) AS c (n)
    ORDER BY l.ix
$$;

COMMENT ON FUNCTION rowdelta.counts_of(rowdelta.plan_of_mapping, jsonb) IS 'the counts of relations as rows';

-- sync_many(mapping, documents, rows_max, percent_max)
--
-- Stores documents, a JSON array of them, with as many statements as for one. A document that fails keeps none of the
-- others out, and is named in the report, which is that of the engine: status (done or failed), documents, relations,
-- failures. A run of the ledger. Where more rows would be deleted than the limits allow, the documents that would delete any
-- are withheld.
--
-- Locks:   as sync.
-- Raises:  RD001, RD005 as sync. What a document does is in the report.
-- Example: SELECT rowdelta.sync_many('shop', '[{"number": "A1"}, {"number": "A2"}]') -> 'failures';
CREATE FUNCTION rowdelta.sync_many(
    mapping text, documents jsonb, rows_max bigint DEFAULT 10000, percent_max numeric DEFAULT 20,
    path name[] DEFAULT pg_catalog.current_schemas(false)
)
    RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_plan    rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path, rows_max, percent_max);
    v_done    rowdelta.done;
    v_labels  jsonb;
BEGIN
    IF jsonb_typeof(documents) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'expected a JSON array of documents' USING ERRCODE = 'RD006';
    END IF;
    v_done := rowdelta.run_array(v_plan, documents);
    IF v_done.failures <> '{}' THEN
        v_labels := (SELECT jsonb_object_agg(f.document, rowdelta.label_of(v_plan, documents -> f.document - 1)) FROM unnest(v_done.failures) AS f);
    END IF;
    RETURN rowdelta.noted(v_plan, v_started, jsonb_array_length(documents), v_done, v_labels);
END
$$;

COMMENT ON FUNCTION rowdelta.sync_many(text, jsonb, bigint, numeric, name[]) IS 'stores documents: writes what differs, and nothing else';

-- sync_texts(mapping, documents, rows_max, percent_max)
--
-- As sync_many, of documents that are given as text, each by itself. A text that was given before, and is as it was stored,
-- is known by its hash: it is not even read as JSON. One that is no JSON fails by itself.
--
-- Locks:   as sync.
-- Raises:  RD001, RD005 as sync. What a document does is in the report.
-- Example: SELECT rowdelta.sync_texts('shop', ARRAY['{"number": "A1"}', '{"number": "A2"}']) -> 'failures';
CREATE FUNCTION rowdelta.sync_texts(
    mapping text, documents text[], rows_max bigint DEFAULT 10000, percent_max numeric DEFAULT 20,
    path name[] DEFAULT pg_catalog.current_schemas(false)
)
    RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_plan    rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path, rows_max, percent_max);
    v_digest  bytea := v_plan.digest;
    v_raws    bytea[] := '{}';
    v_text    text;
    v_texts   text[] := '{}';
    v_at      integer := 0;
    v_labels  jsonb;
    v_seen    rowdelta.print[];
    v_unseen  integer[];
    v_read    record;
    v_done    rowdelta.done;
BEGIN
    IF documents IS NULL THEN
        RAISE EXCEPTION 'expected an array of documents' USING ERRCODE = 'RD006';
    END IF;
    PERFORM rowdelta.hold_mapping(v_plan.mapping);
    -- A query would be planned with a copy of all texts in it, and take longer over that than to hash them.
    FOREACH v_text IN ARRAY documents LOOP
        v_raws := v_raws || ('\x74'::bytea || substr(sha256(v_digest || sha256(convert_to(v_text, 'UTF8'))), 1, 16));
    END LOOP;
    v_seen := rowdelta.seen_texts(v_plan, v_raws);
    v_unseen := rowdelta.unseen(cardinality(v_raws), v_seen);
    IF v_unseen <> '{}' THEN
        FOREACH v_text IN ARRAY documents LOOP
            v_at := v_at + 1;
            IF v_at = v_unseen[cardinality(v_texts) + 1] THEN
                v_texts := array_append(v_texts, v_text);
            END IF;
        END LOOP;
    END IF;
    SELECT * INTO v_read FROM rowdelta.read_texts(v_unseen, v_texts);
    v_done := rowdelta.run_documents(v_plan, v_read.documents, v_read.items, v_raws, v_seen, v_read.failures);
    IF v_done.failures <> '{}' THEN
        v_labels := (SELECT jsonb_object_agg(f.document, rowdelta.label_of(v_plan, documents[f.document]::jsonb)) FROM unnest(v_done.failures) AS f
                     -- Those that are no JSON have no key.
                     WHERE f.document = ANY (v_read.documents || ARRAY(SELECT s.document FROM unnest(v_seen) AS s)));
    END IF;
    RETURN rowdelta.noted(v_plan, v_started, cardinality(v_raws), v_done, v_labels);
END
$$;

COMMENT ON FUNCTION rowdelta.sync_texts(text, text[], bigint, numeric, name[]) IS
    'stores documents given as text: reads those that differ, writes what differs, and nothing else';

-- rowdelta.noted(p_plan, p_started, p_count, p_done, p_labels): enters a run of so many documents in the ledger, and gives its
-- report. p_labels: by number, the keys in words of those that failed.
CREATE FUNCTION rowdelta.noted(
    p_plan rowdelta.plan_of_mapping, p_started timestamptz, p_count integer, p_done rowdelta.done, p_labels jsonb
) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_run    bigint;
    v_report jsonb;
BEGIN
    IF EXISTS (SELECT FROM rowdelta.mapping m WHERE m.id = p_plan.mapping AND m.history IS NOT NULL) THEN
        PERFORM rowdelta.forget_history(p_plan.mapping);
    END IF;
    INSERT INTO rowdelta.run (mapping, started) VALUES (p_plan.mapping, p_started) RETURNING id INTO v_run;
    v_report := rowdelta.reported(p_plan, v_run, p_count, p_done, p_labels);
    INSERT INTO rowdelta.failure (run, document, item, relation, sqlstate, message, retryable)
    SELECT v_run, f.value ->> 'document', (f.value ->> 'item')::bigint, f.value ->> 'relation', f.value ->> 'sqlstate',
           f.value ->> 'message', (f.value ->> 'retryable')::boolean
    FROM jsonb_array_elements(v_report -> 'failures') AS f;
    UPDATE rowdelta.run r SET finished = clock_timestamp(), status = v_report ->> 'status', report = v_report WHERE r.id = v_run;
    RETURN v_report;
END
$$;

COMMENT ON FUNCTION rowdelta.noted(rowdelta.plan_of_mapping, timestamptz, integer, rowdelta.done, jsonb) IS 'enters a run in the ledger';

-- rowdelta.label_of(p_plan, p_item): the key of a document in words: its values, joined by commas.
CREATE FUNCTION rowdelta.label_of(p_plan rowdelta.plan_of_mapping, p_item jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT left(regexp_replace(string_agg(p_item #>> p.fields, ',' ORDER BY p.at), '[[:cntrl:]]', '', 'g'), 200)
        FROM (SELECT k.ordinality AS at, ARRAY(SELECT substr(s.part, 2) FROM jsonb_array_elements_text(
                         ((p_plan.relations[1]).columns[k.at]).paths -> 0) AS s (part)) AS fields
              FROM unnest((p_plan.relations[1]).key_at) WITH ORDINALITY AS k (at)) AS p);
END
$$;

COMMENT ON FUNCTION rowdelta.label_of(rowdelta.plan_of_mapping, jsonb) IS 'the key of a document in words';

-- rowdelta.reported(p_plan, p_run, p_count, p_done, p_labels): the report of a run of so many documents.
CREATE FUNCTION rowdelta.reported(
    p_plan rowdelta.plan_of_mapping, p_run bigint, p_count integer, p_done rowdelta.done, p_labels jsonb
) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT jsonb_build_object(
        'version', 1, 'run', p_run, 'mapping', p_plan.name,
        'status', CASE WHEN p_done.failures <> '{}' THEN 'failed'
                       WHEN 'withheld' = ANY (SELECT d.status FROM unnest(p_done.documents) AS d) THEN 'withheld' ELSE 'done' END,
        'documents', (SELECT jsonb_build_object(
            'read', p_count, 'repeated', count(*) FILTER (WHERE d.status = 'repeated'),
            'unchanged', count(*) FILTER (WHERE d.status = 'unchanged'), 'new', count(*) FILTER (WHERE d.status = 'new'),
            'changed', count(*) FILTER (WHERE d.status = 'changed'), 'removed', 0,
            'failed', (SELECT count(DISTINCT f.document) FROM unnest(p_done.failures) AS f), 'withheld', count(*) FILTER (WHERE d.status = 'withheld'),
            'unsettled', count(*) FILTER (WHERE d.skipped > 0)) FROM unnest(p_done.documents) AS d),
        'relations', (SELECT jsonb_agg(jsonb_build_object(
            'name', c.relation, 'table', c.tbl, 'added', c.added, 'updated', c.updated, 'moved', c.moved, 'removed', c.removed,
            'unchanged', c.unchanged)) FROM rowdelta.counts_of(p_plan, p_done.counts) AS c),
        'withheld_because', p_done.because,
        'skipped_lookups', (SELECT coalesce(sum(d.skipped), 0) FROM unnest(p_done.documents) AS d),
        'failures', (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'document', p_labels ->> f.document::text, 'item', f.document, 'relation', f.relation,
            'sqlstate', CASE WHEN f.sqlstate NOT LIKE 'RD%' THEN f.sqlstate END, 'message', f.message,
            'retryable', coalesce(rowdelta.is_transient(f.sqlstate), false)) ORDER BY f.document), '[]') FROM unnest(p_done.failures) AS f))
$$;

COMMENT ON FUNCTION rowdelta.reported(rowdelta.plan_of_mapping, bigint, integer, rowdelta.done, jsonb) IS 'the report of a run';

-- ---- Deleting, planning, verifying -------------------------------------------------------------

-- rowdelta.too_much(p_plan, p_comparison): why these rows must not be deleted; NULL: they may be.
--
-- The caller's limits and the database's own, of each the stricter one. A table that loses no more than 100 rows is not
-- looked at by percent. A foreign key of a table that nobody maps that deletes along is counted too.
CREATE FUNCTION rowdelta.too_much(
    p_plan rowdelta.plan_of_mapping, p_comparison rowdelta.comparison
) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_rows    bigint := least(p_plan.rows_max, (SELECT min(g.rows_max) FROM rowdelta.guard g
                                           WHERE g.mapping IS NULL OR g.mapping = p_plan.name));
    v_percent numeric := least(p_plan.percent_max, (SELECT min(g.percent_max) FROM rowdelta.guard g
                                               WHERE g.mapping IS NULL OR g.mapping = p_plan.name));
    v_total   bigint := 0;
    v_size    bigint;
    v_gone    bigint;
    v_oid     oid;
    v_guard   text := 'rowdelta.guard, which no argument lifts';
BEGIN
    FOR v_oid, v_gone IN
        SELECT c.oid, c.rows FROM (
            SELECT l.oid, count(*) AS rows FROM unnest(p_comparison.changes) AS c JOIN unnest(p_plan.relations) AS l ON l.ix = c.relation
            WHERE c.action = 'removed' GROUP BY l.oid
            UNION ALL SELECT * FROM rowdelta.carried_along(p_plan, p_comparison)) AS c
    LOOP
        v_total := v_total + v_gone;
        IF v_gone > 100 AND v_percent IS NOT NULL THEN
            EXECUTE format('SELECT count(*) FROM %s', v_oid::regclass) INTO v_size;
            IF 100.0 * v_gone / greatest(v_size, 1) > v_percent THEN
                RETURN format('%s of %s rows of %s would be deleted; at most %s %% may be (%s)', v_gone, v_size, v_oid::regclass, v_percent,
                              CASE WHEN v_percent = p_plan.percent_max THEN 'percent_max' ELSE v_guard END);
            END IF;
        END IF;
    END LOOP;
    IF v_total > v_rows THEN
        RETURN format('%s rows would be deleted; at most %s may be (%s)', v_total, v_rows,
                      CASE WHEN v_rows = p_plan.rows_max THEN 'rows_max' ELSE v_guard END);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION rowdelta.too_much(rowdelta.plan_of_mapping, rowdelta.comparison) IS
    'why rows must not be deleted';

-- rowdelta.carried_along(p_plan, p_comparison): rows of tables that nobody maps that foreign keys delete along, by table; those
-- directly below the rows that go.
CREATE FUNCTION rowdelta.carried_along(p_plan rowdelta.plan_of_mapping, p_comparison rowdelta.comparison)
    RETURNS TABLE (oid oid, rows bigint)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_constraint record;
    v_places     text[];
BEGIN
    FOR v_constraint IN
        SELECT l.ix, l.tbl, c.conrelid, c.conrelid::regclass AS referring,
               (SELECT string_agg(format('r.%I = t.%I', f.attname, k.attname), ' AND ')
                FROM unnest(c.conkey, c.confkey) AS p (own, other)
                JOIN pg_attribute f ON f.attrelid = c.conrelid AND f.attnum = p.own
                JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = p.other) AS met
        FROM unnest(p_plan.relations) AS l JOIN pg_constraint c ON c.confrelid = l.oid AND c.contype = 'f' AND c.confdeltype = 'c'
        WHERE c.conrelid NOT IN (SELECT m.oid FROM unnest(p_plan.relations) AS m)
    LOOP
        v_places := ARRAY(SELECT t.place[2] FROM unnest(p_comparison.changes) AS c
                          JOIN unnest(p_comparison.stored) AS t ON t.relation = c.relation AND t.number = c.stored
                          WHERE c.relation = v_constraint.ix AND c.action = 'removed');
        CONTINUE WHEN v_places = '{}';
        oid := v_constraint.conrelid;
        EXECUTE format('SELECT count(*) FROM %s AS r JOIN %s AS t ON %s WHERE t.ctid = ANY ($1::tid[])',
                       v_constraint.referring, v_constraint.tbl, v_constraint.met) INTO rows USING v_places;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.carried_along(rowdelta.plan_of_mapping, rowdelta.comparison) IS
    'rows of other tables that foreign keys delete along';

-- rowdelta.roots_of(p_plan, p_keys): root rows, for the keys of documents: JSON arrays of the values of the key's columns, or
-- the one value.
CREATE FUNCTION rowdelta.roots_of(p_plan rowdelta.plan_of_mapping, p_keys jsonb) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_plan.relations[1];
    v_roots rowdelta.source_row[];
BEGIN
    IF EXISTS (SELECT FROM jsonb_array_elements(p_keys) AS k (key)
               WHERE CASE jsonb_typeof(k.key) WHEN 'array' THEN jsonb_array_length(k.key) ELSE 1 END <> cardinality(v.key_at)) THEN
        RAISE EXCEPTION 'expected keys of % values: %', cardinality(v.key_at), array_to_string(v.key, ', ') USING ERRCODE = 'RD006';
    END IF;
    EXECUTE rowdelta.keyed_roots_sql(
        v, ARRAY(SELECT format('e.key -> %s', k.ordinality - 1) FROM unnest(v.key_at) WITH ORDINALITY AS k ORDER BY k.ordinality),
        '(SELECT a.at::integer AS document, CASE jsonb_typeof(a.key) WHEN ''array'' THEN a.key ELSE jsonb_build_array(a.key) END AS key '
        'FROM jsonb_array_elements($1) WITH ORDINALITY AS a (key, at)) AS e')
    INTO v_roots USING p_keys;
    RETURN v_roots;
END
$$;

COMMENT ON FUNCTION rowdelta.roots_of(rowdelta.plan_of_mapping, jsonb) IS 'root rows for the keys of documents';

-- rowdelta.whole(p_plan, p_roots): all that is stored of documents, as rows that go.
CREATE FUNCTION rowdelta.whole(p_plan rowdelta.plan_of_mapping, p_roots rowdelta.source_row[]) RETURNS rowdelta.comparison
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
DECLARE
    v     rowdelta.relation;
    v_all rowdelta.comparison := ROW('{}', '{}');
BEGIN
    FOREACH v IN ARRAY p_plan.relations LOOP
        v_all.stored := v_all.stored || rowdelta.read_rows(p_plan.relations, v.ix, p_roots, v_all.stored);
    END LOOP;
    v_all.changes := ARRAY(SELECT ROW(t.relation, 'removed', t.number, NULL, '{}')::rowdelta.row_change FROM unnest(v_all.stored) AS t);
    RETURN v_all;
END
$$;

COMMENT ON FUNCTION rowdelta.whole(rowdelta.plan_of_mapping, rowdelta.source_row[]) IS 'all that is stored of documents';

-- rowdelta.removed(p_plan, p_roots): deletes documents, and what is recorded of them.
-- Raises:  RD008 it would be too much. Of what a foreign key refuses the relation is in the detail.
CREATE FUNCTION rowdelta.removed(p_plan rowdelta.plan_of_mapping, p_roots rowdelta.source_row[]) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_whole  rowdelta.comparison;
    v_reason text;
BEGIN
    PERFORM rowdelta.hold_mapping(p_plan.mapping);
    v_whole := rowdelta.whole(p_plan, p_roots);
    v_reason := rowdelta.too_much(p_plan, v_whole);
    IF v_reason IS NOT NULL THEN
        RAISE EXCEPTION '%', v_reason USING ERRCODE = 'RD008';
    END IF;
    PERFORM rowdelta.applied(p_plan, '{}', v_whole);
    PERFORM rowdelta.dropped(p_plan.mapping, ARRAY(SELECT s.key FROM unnest(p_roots) AS s));
    RETURN rowdelta.counted_changes(v_whole.changes);
END
$$;

COMMENT ON FUNCTION rowdelta.removed(rowdelta.plan_of_mapping, rowdelta.source_row[]) IS 'deletes documents';

-- rowdelta.dropped(p_mapping, p_keys): drops what is recorded of documents, and by which text they are known.
CREATE FUNCTION rowdelta.dropped(p_mapping integer, p_keys bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_known bytea[] := ARRAY(SELECT st.raw FROM rowdelta.states(p_mapping, p_keys) AS st WHERE rowdelta.is_text(st.raw));
BEGIN
    IF v_known <> '{}' THEN
        DELETE FROM rowdelta.spelling t WHERE t.mapping = p_mapping AND t.hash = ANY (v_known);
    END IF;
    PERFORM rowdelta.forget(p_mapping, p_keys);
END
$$;

COMMENT ON FUNCTION rowdelta.dropped(integer, bytea[]) IS 'drops what is recorded of documents';

-- remove(mapping, key)
--
-- Deletes a document: its root row, what is below it, and what is recorded of it. The key is the value of the root's key, or
-- an array of them where it has several columns. One that is not there is none to delete.
--
-- Locks:   the rows that go; what is recorded of the document.
-- Raises:  RD001, RD005 as sync; RD006 the key is none; RD008 the limits on deletions do not allow it; RD003 it was written by
--          someone else meanwhile, again and again; what a foreign key says.
-- Example: SELECT * FROM rowdelta.remove('shop', '"A1"');
CREATE FUNCTION rowdelta.remove(mapping text, key jsonb, path name[] DEFAULT pg_catalog.current_schemas(false))
    RETURNS TABLE (relation text, removed bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan   rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path);
    v_counts jsonb;
BEGIN
    FOR v_try IN 1 .. 5 LOOP
        BEGIN
            v_counts := rowdelta.removed(v_plan, rowdelta.roots_of(v_plan, jsonb_build_array(key)));
            EXIT;
        EXCEPTION WHEN SQLSTATE 'RD003' OR deadlock_detected OR foreign_key_violation THEN
            -- Somebody wrote the document meanwhile.
            IF v_try = 5 OR v_try = 2 AND SQLSTATE = '23503' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    RETURN QUERY SELECT c.relation, c.removed FROM rowdelta.counts_of(v_plan, v_counts) AS c;
END
$$;

COMMENT ON FUNCTION rowdelta.remove(text, jsonb, name[]) IS 'deletes a document, and what is recorded of it';

-- sweep(mapping, keys, expected, rows_max, percent_max)
--
-- Deletes the documents recorded that are missing from a complete feed, of which these are the keys: all of them or none.
-- Nothing is deleted because of a feed that is empty, has fewer documents than expected, or, where nothing is expected, less
-- than half of those that are recorded; nor beyond the limits. A mapping with on_absent = "keep" deletes none.
--
-- Locks:   the rows that go; what is recorded of their documents.
-- Raises:  RD001, RD005, RD006 as remove; RD008 the feed may not be complete, or too much would be deleted.
-- Example: SELECT * FROM rowdelta.sweep('shop', '["A1", "A2"]');
CREATE FUNCTION rowdelta.sweep(
    mapping text, keys jsonb, expected bigint DEFAULT NULL, rows_max bigint DEFAULT 10000, percent_max numeric DEFAULT 20,
    path name[] DEFAULT pg_catalog.current_schemas(false)
) RETURNS TABLE (relation text, removed bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan    rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path, rows_max, percent_max);
    v_seen    bytea[] := ARRAY(SELECT s.key FROM unnest(rowdelta.roots_of(v_plan, sweep.keys)) AS s);
    v_known   bytea[] := ARRAY(SELECT p.key FROM rowdelta.present(v_plan.mapping) AS p (key));
    v_absent  bytea[] := ARRAY(SELECT k.key FROM unnest(v_known) AS k (key) EXCEPT SELECT s.key FROM unnest(v_seen) AS s (key));
    v_keep    boolean;
    v_counts  jsonb := '{}';
BEGIN
    IF v_seen = '{}' THEN
        RAISE EXCEPTION 'no keys are given: an empty feed deletes nothing' USING ERRCODE = 'RD008';
    ELSIF cardinality(v_seen) < expected THEN
        RAISE EXCEPTION '% keys are given; at least % were expected', cardinality(v_seen), expected USING ERRCODE = 'RD008';
    ELSIF expected IS NULL AND cardinality(v_seen) < cardinality(v_known) / 2 THEN
        RAISE EXCEPTION '% keys are given, and % documents are recorded, of which at least half must be among them; if the feed is whole, expected => %',
            cardinality(v_seen), cardinality(v_known), cardinality(v_seen) USING ERRCODE = 'RD008';
    END IF;
    SELECT m.definition #>> '{root,on_absent}' = 'keep' INTO v_keep FROM rowdelta.mapping m WHERE m.id = v_plan.mapping;
    IF v_absent <> '{}' AND v_keep IS NOT TRUE THEN
        v_counts := rowdelta.removed(v_plan, rowdelta.roots_with(v_plan, v_absent));
        -- Of documents whose rows somebody else deleted, too.
        PERFORM rowdelta.dropped(v_plan.mapping, v_absent);
    END IF;
    RETURN QUERY SELECT c.relation, c.removed FROM rowdelta.counts_of(v_plan, v_counts) AS c;
END
$$;

COMMENT ON FUNCTION rowdelta.sweep(text, jsonb, bigint, bigint, numeric, name[]) IS
    'deletes the documents that are missing from a complete feed';

-- rowdelta.roots_with(p_plan, p_keys): root rows that are stored, by the keys of their documents.
CREATE FUNCTION rowdelta.roots_with(p_plan rowdelta.plan_of_mapping, p_keys bytea[]) RETURNS rowdelta.source_row[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v       rowdelta.relation := p_plan.relations[1];
    v_roots rowdelta.source_row[];
BEGIN
    EXECUTE format(
        'SELECT coalesce(array_agg(ROW(1, s.at, s.at, NULL, NULL, s.cells, NULL, ''{}'', s.key, NULL, 0, false)::rowdelta.source_row), ''{}'') '
        'FROM (SELECT row_number() OVER ()::integer AS at, ARRAY[%s] AS cells, %s AS key FROM %s AS t OFFSET 0) AS s WHERE s.key = ANY ($1)',
        (SELECT string_agg(CASE WHEN i = ANY (v.key_at) THEN format('t.%I::text', (v.columns[i]).name) ELSE 'NULL' END, ', ' ORDER BY i)
         FROM generate_series(1, cardinality(v.columns)) AS i), rowdelta.key_sql(v), v.tbl)
    INTO v_roots USING p_keys;
    RETURN v_roots;
END
$$;

COMMENT ON FUNCTION rowdelta.roots_with(rowdelta.plan_of_mapping, bytea[]) IS 'root rows that are stored, by the keys of documents';

CREATE TYPE rowdelta.planned_change AS (
    relation text,
    action   text,
    key      jsonb,
    before   jsonb,
    after    jsonb
);

COMMENT ON TYPE rowdelta.planned_change IS 'a row that would be written: of an update the columns that differ';

-- rowdelta.named_cells(p_relation, p_cells, p_columns): cells as an object, by the names of their columns.
CREATE FUNCTION rowdelta.named_cells(p_relation rowdelta.relation, p_cells text[], p_columns integer[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT jsonb_object_agg((p_relation.columns[i]).name, p_cells[i]) FROM unnest(p_columns) AS i WHERE p_cells IS NOT NULL);
END
$$;

COMMENT ON FUNCTION rowdelta.named_cells(rowdelta.relation, text[], integer[]) IS 'cells as an object';

-- rowdelta.described(p_plan, p_source, p_comparison): the rows that are written, each with its document; a removed row of
-- another document has none.
CREATE FUNCTION rowdelta.described(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_comparison rowdelta.comparison
) RETURNS TABLE (document integer, change rowdelta.planned_change)
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_nestloop = off
AS $$
    SELECT coalesce(s.document, t.document), ROW(
        l.name, c.action, rowdelta.named_cells(p_plan.relations[l.ix], coalesce(s.cells, t.cells), l.key_at),
        rowdelta.named_cells(p_plan.relations[l.ix], t.cells, w.columns),
        rowdelta.named_cells(p_plan.relations[l.ix], s.cells, w.columns))::rowdelta.planned_change
    FROM unnest(p_comparison.changes) AS c JOIN unnest(p_plan.relations) AS l ON l.ix = c.relation
    LEFT JOIN unnest(p_source) AS s ON s.relation = c.relation AND s.number = c.source
    LEFT JOIN unnest(p_comparison.stored) AS t ON t.relation = c.relation AND t.number = c.stored
    CROSS JOIN LATERAL (SELECT CASE WHEN c.action IN ('added', 'removed') THEN ARRAY(SELECT generate_series(1, cardinality(l.columns)))
                                    ELSE c.columns END AS columns) AS w
    WHERE c.action IN ('added', 'updated', 'moved', 'removed') ORDER BY c.relation, c.action, c.source, c.stored
$$;

COMMENT ON FUNCTION rowdelta.described(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.comparison) IS
    'the rows that are written, in words';

-- plan(mapping, document)
--
-- What sync would write for a document, a row each: its relation, what becomes of it, its key, and its values before and
-- after; of an update the columns that differ. Nothing is written. Values are as text, as the columns have them.
--
-- Locks:   none that outlast it, but a catalogue row that is missing is inserted and taken back: its key is locked meanwhile.
-- Raises:  RD001, RD005, RD006 as sync.
-- Example: SELECT * FROM rowdelta.plan('shop', '{"number": "A1"}');
CREATE FUNCTION rowdelta.plan(mapping text, document jsonb, path name[] DEFAULT pg_catalog.current_schemas(false))
    RETURNS SETOF rowdelta.planned_change
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan       rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path);
    v_source     rowdelta.source_row[];
    v_trees      rowdelta.node[];
    v_comparison rowdelta.comparison;
BEGIN
    BEGIN
        v_source := rowdelta.chosen(v_plan.relations, (rowdelta.shredded(v_plan, ARRAY[1], ARRAY[document])).rows);
        v_trees := rowdelta.trees(v_plan.relations, v_source);
        v_comparison := rowdelta.compared(v_plan, v_source, v_trees);
        RAISE EXCEPTION 'taken back' USING ERRCODE = 'RD009';
    EXCEPTION WHEN SQLSTATE 'RD009' THEN
        NULL;
    END;
    RETURN QUERY SELECT (d.change).* FROM rowdelta.described(v_plan, v_source, v_comparison) AS d;
END
$$;

COMMENT ON FUNCTION rowdelta.plan(text, jsonb, name[]) IS 'what sync would write for a document';

-- rowdelta.unpacked(p_relations, p_recorded): the fingerprints of relations from how they are recorded.
CREATE FUNCTION rowdelta.unpacked(p_relations rowdelta.relation[], p_recorded bytea) RETURNS TABLE (ix integer, hash bytea)
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT l.ix, CASE WHEN l.follows
                      THEN substr(p_recorded, 3 + (cardinality(p_relations) + 7) / 8 + 16 * (l.before::integer - 1), 16)
                      ELSE substr(sha256(l.digest), 1, 16) END
    FROM (SELECT b.ix, b.digest, b.follows, count(*) FILTER (WHERE b.follows) OVER (ORDER BY b.ix) AS before
          FROM (SELECT m.ix, m.digest, get_byte(p_recorded, 2 + (m.ix - 1) / 8) & (1 << (m.ix - 1) % 8) <> 0 AS follows
                FROM unnest(p_relations) AS m) AS b) AS l
$$;

COMMENT ON FUNCTION rowdelta.unpacked(rowdelta.relation[], bytea) IS 'the fingerprints of relations from how they are recorded';

-- rowdelta.key_words(p_root, p_key): the key of a document in words, where its columns are text or integers; else its bytes.
CREATE FUNCTION rowdelta.key_words(p_root rowdelta.relation, p_key bytea) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_words text[] := '{}';
    v_at    integer := 1;
    v_width integer;
    v_cell  bytea;
    v_place integer;
BEGIN
    FOREACH v_place IN ARRAY p_root.key_at LOOP
        v_width := ('x' || encode(substr(p_key, v_at, 4), 'hex'))::bit(32)::integer;
        v_cell := substr(p_key, v_at + 4, greatest(v_width, 0));
        v_at := v_at + 4 + greatest(v_width, 0);
        v_words := v_words || CASE WHEN v_width < 0 THEN 'NULL'
            WHEN (p_root.columns[v_place]).kind = 'text' THEN convert_from(v_cell, 'UTF8')
            WHEN (p_root.columns[v_place]).kind = 'integer' THEN
                -- In two's complement, of whatever width.
                (('x' || repeat(CASE WHEN get_byte(v_cell, 0) > 127 THEN 'ff' ELSE '00' END, 8 - v_width) || encode(v_cell, 'hex'))
                 ::bit(64)::bigint)::text
            ELSE v_cell::text END;
    END LOOP;
    RETURN array_to_string(v_words, ',');
END
$$;

COMMENT ON FUNCTION rowdelta.key_words(rowdelta.relation, bytea) IS 'the key of a document in words';

CREATE TYPE rowdelta.extent AS (
    ix          integer,
    nothing     boolean,
    without     integer[],
    fingerprint bytea
);

COMMENT ON TYPE rowdelta.extent IS 'what the fingerprint of a relation leaves out: all, or columns, and the fingerprint that it has without them';

-- rowdelta.extents(p_coverage): what is left out, from how it is recorded (src/fingerprint/coverage.rs).
CREATE FUNCTION rowdelta.extents(p_coverage bytea) RETURNS rowdelta.extent[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_extents rowdelta.extent[] := '{}';
    v_extent  rowdelta.extent;
    v_at      integer := 8;
    v_columns integer;
BEGIN
    WHILE v_at < octet_length(p_coverage) LOOP
        v_extent.ix := 256 * get_byte(p_coverage, v_at) + get_byte(p_coverage, v_at + 1) + 1;
        v_columns := 256 * get_byte(p_coverage, v_at + 2) + get_byte(p_coverage, v_at + 3);
        v_extent.nothing := v_columns = 65535;
        v_extent.without := '{}';
        v_extent.fingerprint := NULL;
        v_at := v_at + 4;
        IF NOT v_extent.nothing THEN
            v_extent.without := ARRAY(SELECT 256 * get_byte(p_coverage, v_at + 2 * i) + get_byte(p_coverage, v_at + 2 * i + 1) + 1
                                      FROM generate_series(0, v_columns - 1) AS i);
            v_at := v_at + 2 * v_columns + 1;
            IF get_byte(p_coverage, v_at - 1) <> 0 THEN
                v_extent.fingerprint := substr(p_coverage, v_at + 1, 16);
                v_at := v_at + 16;
            END IF;
        END IF;
        v_extents := v_extents || v_extent;
    END LOOP;
    RETURN v_extents;
END
$$;

COMMENT ON FUNCTION rowdelta.extents(bytea) IS 'what fingerprints leave out';

-- rowdelta.masked(p_forms, p_without): the fingerprint of a row without some of its columns.
CREATE FUNCTION rowdelta.masked(p_forms bytea[], p_without integer[]) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT substr(sha256(int2send(cardinality(p_forms)::smallint) || string_agg(
                   CASE WHEN f.at = ANY (p_without) THEN '\xfffffffe' WHEN f.form IS NULL THEN '\xffffffff'
                        ELSE int4send(octet_length(f.form)) || f.form END, '' ORDER BY f.at)), 1, 16)
        FROM unnest(p_forms) WITH ORDINALITY AS f (form, at));
END
$$;

COMMENT ON FUNCTION rowdelta.masked(bytea[], integer[]) IS 'the fingerprint of a row without some of its columns';

CREATE TYPE rowdelta.known_document AS (
    key       bytea,
    recorded  bytea,
    extents   rowdelta.extent[]
);

COMMENT ON TYPE rowdelta.known_document IS 'a document with the fingerprints of its relations that are recorded, and what these leave out';

-- rowdelta.differing(p_relations, p_known, p_found): the names of the relations whose fingerprints are not the recorded ones.
CREATE FUNCTION rowdelta.differing(p_relations rowdelta.relation[], p_known rowdelta.known_document, p_found bytea) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(l.name, ', ' ORDER BY l.ix) FROM unnest(p_relations) AS l
        JOIN rowdelta.unpacked(p_relations, p_known.recorded) AS a USING (ix)
        JOIN rowdelta.unpacked(p_relations, p_found) AS b USING (ix)
        LEFT JOIN unnest(p_known.extents) AS e USING (ix)
        WHERE e.nothing IS NOT TRUE AND coalesce(e.fingerprint, a.hash) <> b.hash);
END
$$;

COMMENT ON FUNCTION rowdelta.differing(rowdelta.relation[], rowdelta.known_document, bytea) IS
    'relations whose fingerprints are not the recorded ones';

-- verify(mapping)
--
-- Compares the stored rows of documents with the fingerprints that are recorded of them, and names what differs: the
-- document, and the relations; `gone` is a root row that is not there. Documents that are to be done again anyway are passed
-- over, and so is what a document said nothing about. Nothing is written.
--
-- Locks:   none.
-- Raises:  RD001, RD005 as sync.
-- Example: SELECT * FROM rowdelta.verify('shop');
CREATE FUNCTION rowdelta.verify(mapping text, path name[] DEFAULT pg_catalog.current_schemas(false))
    RETURNS TABLE (document text, relation text, differs text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET client_encoding = 'UTF8'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET array_nulls = on
    SET standard_conforming_strings = on
    SET jit = off
AS $$
DECLARE
    v_plan  rowdelta.plan_of_mapping := rowdelta.plan_for(mapping, path);
    v_full  bytea := rowdelta.coverage_of(v_plan.relations);
    v_after bytea;
    v_keys  bytea[];
    v_known rowdelta.known_document[];
    v_roots rowdelta.source_row[];
    v_whole rowdelta.comparison;
    v_rows  rowdelta.source_row[];
    v_found rowdelta.print[];
BEGIN
    LOOP
        -- Of fingerprints under other digests only that the root row is there can be seen.
        SELECT array_agg(r.key ORDER BY r.key),
               coalesce(array_agg(ROW(r.key, CASE WHEN substr(r.coverage, 1, 8) = v_full THEN r.relations END,
                                      rowdelta.extents(r.coverage))::rowdelta.known_document) FILTER (WHERE r.settled), '{}')
        INTO v_keys, v_known FROM rowdelta.recorded(v_plan.mapping, v_after, 500) AS r;
        EXIT WHEN v_keys IS NULL;
        v_after := v_keys[cardinality(v_keys)];
        v_roots := rowdelta.roots_with(v_plan, v_keys);
        v_whole := rowdelta.whole(v_plan, v_roots);
        v_rows := ARRAY(
            SELECT ROW(t.relation, t.document, t.number, t.parent, NULL, t.cells, t.forms, '{}', t.key,
                       CASE WHEN e.without <> '{}' THEN rowdelta.masked(t.forms, e.without) ELSE t.fingerprint END, 0, false
                       )::rowdelta.source_row
            FROM unnest(v_whole.stored) AS t
            LEFT JOIN (SELECT s.document, x.ix, x.without FROM unnest(v_known) AS k JOIN unnest(v_roots) AS s ON s.key = k.key
                       CROSS JOIN LATERAL unnest(k.extents) AS x) AS e ON e.document = t.document AND e.ix = t.relation);
        v_found := rowdelta.prints(v_plan.relations, v_rows, rowdelta.trees(v_plan.relations, v_rows));
        RETURN QUERY
        SELECT rowdelta.key_words(v_plan.relations[1], d.key), d.relations, d.what FROM (
            SELECT k.key, CASE WHEN f.key IS NULL THEN v_plan.name ELSE rowdelta.differing(v_plan.relations, k, f.recorded) END AS relations,
                   CASE WHEN f.key IS NULL THEN 'gone' ELSE 'changed' END AS what
            FROM unnest(v_known) AS k LEFT JOIN unnest(v_found) AS f ON f.key = k.key
            WHERE f.key IS NULL OR k.recorded IS NOT NULL) AS d
        WHERE d.relations IS NOT NULL;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.verify(text, name[]) IS 'compares stored rows with what is recorded of them';

-- ---- History -----------------------------------------------------------------------------------

-- rowdelta.keep_history(mapping, keep)
--
-- Has sync and sync_many note every row that they write in rowdelta.change, before and after, for so long; NULL: no more
-- is noted, and what is there goes.
--
-- Raises:  RD001 unknown mapping.
-- Example: SELECT rowdelta.keep_history('shop', '90 days');
CREATE FUNCTION rowdelta.keep_history(mapping text, keep interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_id integer;
BEGIN
    UPDATE rowdelta.mapping m SET history = keep WHERE m.name = keep_history.mapping RETURNING m.id INTO v_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no mapping % is registered: rowdelta.register(...) enters one, rowdelta.mappings() lists them', to_json(keep_history.mapping)
            USING ERRCODE = 'RD001';
    END IF;
    PERFORM rowdelta.forget_history(v_id);
END
$$;

COMMENT ON FUNCTION rowdelta.keep_history(text, interval) IS 'has rows that are written noted for a time';

-- rowdelta.forget_history(p_mapping): deletes what was noted of rows and has been kept for long enough.
CREATE FUNCTION rowdelta.forget_history(p_mapping integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    DELETE FROM rowdelta.change c USING rowdelta.mapping m
    WHERE m.id = p_mapping AND c.mapping = m.id AND c.at < clock_timestamp() - coalesce(m.history, '0');
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.forget_history(integer) IS 'deletes what was noted of rows long ago';

-- rowdelta.note_history(p_plan, p_source, p_comparison): notes the rows that are written, where that is asked for.
CREATE FUNCTION rowdelta.note_history(
    p_plan rowdelta.plan_of_mapping, p_source rowdelta.source_row[], p_comparison rowdelta.comparison
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM rowdelta.mapping m WHERE m.id = p_plan.mapping AND m.history IS NOT NULL) THEN
        RETURN;
    END IF;
    INSERT INTO rowdelta.change (mapping, document, relation, action, key, before, after)
    SELECT p_plan.mapping, r.label, (d.change).relation, (d.change).action, (d.change).key, (d.change).before, (d.change).after
    FROM rowdelta.described(p_plan, p_source, p_comparison) AS d
    LEFT JOIN (SELECT s.document, string_agg(s.cells[k.at], ',' ORDER BY k.ordinality) AS label
               FROM unnest(p_source) AS s, unnest((p_plan.relations[1]).key_at) WITH ORDINALITY AS k (at)
               WHERE s.relation = 1 GROUP BY s.document) AS r USING (document);
END
$$;

COMMENT ON FUNCTION rowdelta.note_history(rowdelta.plan_of_mapping, rowdelta.source_row[], rowdelta.comparison) IS
    'notes the rows that are written';

CREATE VIEW rowdelta.status AS
    SELECT m.name AS mapping, r.id AS run, r.started, r.finished, r.status, r.report OPERATOR(pg_catalog.->) 'documents' AS documents,
           CASE WHEN m.lease_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN m.lease_holder END AS at_work
    FROM rowdelta.mapping m LEFT JOIN LATERAL (
        SELECT * FROM rowdelta.run r WHERE r.mapping OPERATOR(pg_catalog.=) m.id ORDER BY r.id DESC LIMIT 1) AS r ON true;

COMMENT ON VIEW rowdelta.status IS 'the last run of each mapping';

CREATE VIEW rowdelta.failures AS
    SELECT m.name AS mapping, f.run, r.started, f.document, f.relation, f.path, f.sqlstate, f.message, f.retryable, f.file, f.line, f.item
    FROM rowdelta.failure f
    JOIN rowdelta.run r ON r.id OPERATOR(pg_catalog.=) f.run
    JOIN rowdelta.mapping m ON m.id OPERATOR(pg_catalog.=) r.mapping
    WHERE r.id OPERATOR(pg_catalog.=) (
        SELECT pg_catalog.max(l.id) FROM rowdelta.run l WHERE l.mapping OPERATOR(pg_catalog.=) m.id);

COMMENT ON VIEW rowdelta.failures IS 'what failed in the last run of each mapping';
