-- Functions of the meridian extension. Write forwarding itself is in the library, which also works
-- without this script (shared_preload_libraries or session_preload_libraries).
\echo Use "CREATE EXTENSION meridian" to load this file. \quit

-- Stable, so that calling them never sends the calling statement to the primary.

CREATE FUNCTION meridian.commit_token() RETURNS text
AS 'MODULE_PATHNAME', 'meridian_commit_token' LANGUAGE C STABLE;
COMMENT ON FUNCTION meridian.commit_token() IS
'the last commit of this session, to be waited for by another; on a primary: all commits so far';

CREATE FUNCTION meridian.wait_for(token text) RETURNS void
AS 'MODULE_PATHNAME', 'meridian_wait_for' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION meridian.wait_for(text) IS
'waits until this server has replayed the commit; the next statement sees it';

CREATE FUNCTION meridian.status(
        OUT in_recovery boolean, OUT forwarding boolean, OUT connected boolean, OUT writer text,
        OUT writer_pid integer, OUT writer_timeline bigint, OUT statements bigint,
        OUT transactions bigint, OUT waits bigint)
AS 'MODULE_PATHNAME', 'meridian_status' LANGUAGE C STABLE;
COMMENT ON FUNCTION meridian.status() IS 'write forwarding of this session';

CREATE VIEW meridian.forwarding AS SELECT * FROM meridian.status();

GRANT USAGE ON SCHEMA meridian TO PUBLIC;
GRANT SELECT ON meridian.forwarding TO PUBLIC;

-- How users log in on the primary where no passfile or certificate says it:
--   CREATE USER MAPPING FOR alice SERVER meridian_writer OPTIONS (password '...');
CREATE FUNCTION meridian.mapping_validator(text[], oid) RETURNS void
AS 'MODULE_PATHNAME', 'meridian_mapping_validator' LANGUAGE C STRICT;

CREATE FOREIGN DATA WRAPPER meridian VALIDATOR meridian.mapping_validator;
CREATE SERVER meridian_writer FOREIGN DATA WRAPPER meridian;
