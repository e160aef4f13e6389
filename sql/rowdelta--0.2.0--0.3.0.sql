-- From 0.2.0 to 0.3.0: what is recorded of documents is found by their keys, whatever the server knows of the tables.

CREATE OR REPLACE FUNCTION rowdelta.version() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$ SELECT '0.3.0' $$;

CREATE OR REPLACE FUNCTION rowdelta.states(p_mapping integer, p_keys bytea[])
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

CREATE OR REPLACE FUNCTION rowdelta.record(
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

CREATE OR REPLACE FUNCTION rowdelta.renew_raw(p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[])
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
    UPDATE rowdelta.document d SET raw = n.raw, respelled = true
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND NOT d.gone AND d.fingerprint = n.expected;
    GET DIAGNOSTICS v_renewed = ROW_COUNT;
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

CREATE OR REPLACE FUNCTION rowdelta.settle(p_mapping integer, p_keys bytea[], p_fingerprints bytea[]) RETURNS bigint
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
