-- Takes the schema rowdelta back from the extension, which is dropped; the schema stays, with all that is in it: what `rowdelta
-- install --plain` does. With psql: psql -1 -f to-plain.sql. The server needs no files of the extension for it.

DO $$
DECLARE
    v_member text;
BEGIN
    FOR v_member IN
        WITH member AS (
            SELECT d.classid, d.objid FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
            WHERE e.extname OPERATOR(pg_catalog.=) 'rowdelta'
        )
        SELECT 'SCHEMA rowdelta' FROM member m WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
        UNION ALL
        SELECT pg_catalog.format('FUNCTION %s', m.objid::pg_catalog.regprocedure) FROM member m
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION ALL
        SELECT pg_catalog.format('%s %s', k.kind, c.oid::pg_catalog.regclass)
        FROM member m JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.objid
        JOIN (VALUES ('r'::pg_catalog."char", 'TABLE'), ('v', 'VIEW'), ('S', 'SEQUENCE')) AS k (relkind, kind)
            ON k.relkind OPERATOR(pg_catalog.=) c.relkind
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        UNION ALL
        -- The types of tables and of arrays go with theirs.
        SELECT pg_catalog.format('TYPE %s', c.oid::pg_catalog.regclass) FROM member m
        JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) m.objid
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.typrelid AND c.relkind OPERATOR(pg_catalog.=) 'c'
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
    LOOP
        EXECUTE pg_catalog.format('ALTER EXTENSION rowdelta DROP %s', v_member);
    END LOOP;
    DROP EXTENSION rowdelta;
END
$$;
