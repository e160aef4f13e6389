-- Hands all that is in the schema rowdelta over to the extension; see rowdelta--unpackaged.sql.

DO $$
DECLARE
    v_name text;
BEGIN
    IF rowdelta.version() OPERATOR(pg_catalog.<>) '0.3.0' THEN
        RAISE EXCEPTION 'schema rowdelta is of version %: upgrade it to 0.3.0, then hand it over', rowdelta.version()
            USING ERRCODE = '55000';
    END IF;
    -- What a member of the extension holds is in no dump, unless it is said of the very table.
    SELECT pg_catalog.min(o.name) INTO v_name FROM (
        SELECT c.oid::pg_catalog.regclass::pg_catalog.text AS name FROM pg_catalog.pg_class c
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace AND c.relkind OPERATOR(pg_catalog.<>) ALL (ARRAY['i', 'c']::pg_catalog."char"[])
          AND c.relname OPERATOR(pg_catalog.<>) ALL (ARRAY[
              'mapping', 'mapping_id_seq', 'document', 'base', 'skip', 'rewritten', 'run', 'run_id_seq', 'failure', 'guard',
              'change', 'change_id_seq', 'spelling', 'state', 'status', 'failures']::pg_catalog.name[])
        UNION ALL
        SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
          AND (p.proconfig OPERATOR(pg_catalog.@>) ARRAY['search_path=pg_catalog, rowdelta, pg_temp']) IS NOT TRUE) AS o;
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION '% is not of rowdelta: move it to another schema', v_name USING ERRCODE = '55000';
    END IF;
    FOR v_name IN
        SELECT 'SCHEMA rowdelta'
        UNION ALL
        SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
        UNION ALL
        SELECT pg_catalog.format('%s %s', k.kind, c.oid::pg_catalog.regclass)
        FROM (VALUES ('r'::pg_catalog."char", 'TABLE'), ('v', 'VIEW'), ('S', 'SEQUENCE'), ('c', 'TYPE')) AS k (relkind, kind)
        JOIN pg_catalog.pg_class c ON c.relkind OPERATOR(pg_catalog.=) k.relkind
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
    LOOP
        EXECUTE pg_catalog.format('ALTER EXTENSION rowdelta ADD %s', v_name);
    END LOOP;
    FOREACH v_name IN ARRAY ARRAY['mapping', 'mapping_id_seq', 'document', 'base', 'skip', 'rewritten', 'run', 'run_id_seq', 'failure',
                                  'guard', 'change', 'change_id_seq', 'spelling'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(pg_catalog.format('rowdelta.%I', v_name)::pg_catalog.regclass, '');
    END LOOP;
END
$$;
