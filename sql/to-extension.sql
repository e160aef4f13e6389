-- Hands the schema rowdelta, as `rowdelta install` or psql -f installed it, over to the extension: what `rowdelta install
-- --extension` does. With psql: psql -1 -f to-extension.sql. Nothing is copied and no row is touched.
--
-- Privileges that an object has when it becomes a member of an extension count as the extension's own: pg_dump leaves them
-- out, and a restored database lacks them. So all go back to the defaults before, and are granted again after.

DO $$
DECLARE
    v_before text[];
    v_after  text[];
    v_one    text;
BEGIN
    WITH object AS (
        SELECT 'SCHEMA' AS kind, n.oid::pg_catalog.regnamespace::pg_catalog.text AS name, '' AS columns, n.nspowner AS owner, n.nspacl AS acl,
               pg_catalog.acldefault('n', n.nspowner) AS usual
        FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'rowdelta'
        UNION ALL
        SELECT k.kind, c.oid::pg_catalog.regclass::pg_catalog.text, '', c.relowner, c.relacl, pg_catalog.acldefault(k.acl, c.relowner)
        FROM (VALUES ('r'::pg_catalog."char", 'TABLE', 'r'::pg_catalog."char"), ('v', 'TABLE', 'r'), ('S', 'SEQUENCE', 's')) AS k (relkind, kind, acl)
        JOIN pg_catalog.pg_class c ON c.relkind OPERATOR(pg_catalog.=) k.relkind
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'TABLE', c.oid::pg_catalog.regclass::pg_catalog.text, pg_catalog.format(' (%I)', a.attname), c.relowner, a.attacl,
               pg_catalog.acldefault('c', c.relowner)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace AND NOT a.attisdropped
        UNION ALL
        SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text, '', p.proowner, p.proacl, pg_catalog.acldefault('f', p.proowner)
        FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'TYPE', pg_catalog.format_type(t.oid, NULL), '', t.typowner, t.typacl, pg_catalog.acldefault('T', t.typowner)
        FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) 'rowdelta'::pg_catalog.regnamespace
    ), granted AS (
        SELECT o.*, a.*, pg_catalog.format('%s ON %s %s', o.columns, o.kind, o.name) AS place,
               CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END AS role
        FROM object o
        CROSS JOIN LATERAL (SELECT false AS is_usual, (pg_catalog.aclexplode(o.acl)).*
                            UNION ALL SELECT true, (pg_catalog.aclexplode(o.usual)).*) AS a
        WHERE o.acl IS NOT NULL
    ), statement AS (
        SELECT DISTINCT g.is_usual, 1 AS step, pg_catalog.format('REVOKE ALL%s FROM %s CASCADE', g.place, g.role) AS sql FROM granted g
        UNION ALL
        SELECT g.is_usual, 2, pg_catalog.format('GRANT %s%s TO %s%s', g.privilege_type, g.place, g.role,
                                                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END)
        FROM granted g
    )
    -- What is granted is revoked before and granted after; the defaults are granted before and revoked after.
    SELECT pg_catalog.array_agg(s.sql ORDER BY s.step, s.sql) FILTER (WHERE s.is_usual OPERATOR(pg_catalog.=) (s.step OPERATOR(pg_catalog.=) 2)),
           pg_catalog.array_agg(s.sql ORDER BY s.step, s.sql) FILTER (WHERE s.is_usual OPERATOR(pg_catalog.=) (s.step OPERATOR(pg_catalog.=) 1))
    INTO v_before, v_after
    FROM statement s;
    FOREACH v_one IN ARRAY COALESCE(v_before, '{}') LOOP
        EXECUTE v_one;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'rowdelta') THEN
        CREATE EXTENSION rowdelta VERSION 'unpackaged';
    END IF;
    EXECUTE pg_catalog.format('ALTER EXTENSION rowdelta UPDATE TO %L', rowdelta.version());
    FOREACH v_one IN ARRAY COALESCE(v_after, '{}') LOOP
        EXECUTE v_one;
    END LOOP;
END
$$;
