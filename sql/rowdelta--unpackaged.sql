-- CREATE EXTENSION rowdelta VERSION 'unpackaged': the first half of handing an installed schema over to the extension.
-- The second is ALTER EXTENSION rowdelta UPDATE. Do both by `rowdelta install --extension`, or by psql -1 -f
-- to-extension.sql, which see to the grants: a dump has none of those that were there when an object was handed over.

DO $$
BEGIN
    IF pg_catalog.to_regprocedure('rowdelta.version()') IS NULL THEN
        RAISE EXCEPTION 'there is no schema rowdelta to hand over: CREATE EXTENSION rowdelta' USING ERRCODE = '55000';
    END IF;
END
$$;
