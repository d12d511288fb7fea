-- A database and two roles for each service, on PostgreSQL 15 to 18: `users` is what the service runs as, `users_owner`
-- owns the database and is for migrations. Run it as a superuser (or as an administrator with CREATEROLE and CREATEDB)
-- with psql; running it again changes only the passwords. README.md shows how.
--
-- Passwords come from the environment (USERS_DATABASE_PASSWORD, USERS_OWNER_DATABASE_PASSWORD) or from psql variables
-- (users_password, users_owner_password). Another service is two more lines in each of these three blocks, and one at
-- the end.

\set ON_ERROR_STOP on
\set QUIET on

\getenv users_password USERS_DATABASE_PASSWORD
\getenv users_owner_password USERS_OWNER_DATABASE_PASSWORD
\getenv orders_password ORDERS_DATABASE_PASSWORD
\getenv orders_owner_password ORDERS_OWNER_DATABASE_PASSWORD
\getenv tasks_password TASKS_DATABASE_PASSWORD
\getenv tasks_owner_password TASKS_OWNER_DATABASE_PASSWORD
\getenv sites_password SITES_DATABASE_PASSWORD
\getenv sites_owner_password SITES_OWNER_DATABASE_PASSWORD

\if :{?users_password} \else \set users_password '' \endif
\if :{?users_owner_password} \else \set users_owner_password '' \endif
\if :{?orders_password} \else \set orders_password '' \endif
\if :{?orders_owner_password} \else \set orders_owner_password '' \endif
\if :{?tasks_password} \else \set tasks_password '' \endif
\if :{?tasks_owner_password} \else \set tasks_owner_password '' \endif
\if :{?sites_password} \else \set sites_password '' \endif
\if :{?sites_owner_password} \else \set sites_owner_password '' \endif

SELECT set_config('siteworks.passwords', json_build_object(
    'users', :'users_password',
    'users_owner', :'users_owner_password',
    'orders', :'orders_password',
    'orders_owner', :'orders_owner_password',
    'tasks', :'tasks_password',
    'tasks_owner', :'tasks_owner_password',
    'sites', :'sites_password',
    'sites_owner', :'sites_owner_password'
)::text, false) AS ignored \gset

DO $$
DECLARE
    missing text;
BEGIN
    SELECT key INTO missing FROM json_each_text(current_setting('siteworks.passwords')::json) WHERE value = '' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'no password for the role %: set %_DATABASE_PASSWORD', missing, upper(missing);
    END IF;
END $$;

-- Creating a role and setting its password are two statements, so that both work if the role exists.
SELECT format('CREATE ROLE %I LOGIN', role)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec

-- An existing role with more rights loses them. Only where needed: an administrator who is not a superuser may not even
-- mention these attributes.
SELECT format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', rolname)
FROM pg_roles
JOIN json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role) ON rolname = role
WHERE rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls
\gexec

SET password_encryption = 'scram-sha-256';
SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', role, password)
FROM json_each_text(current_setting('siteworks.passwords')::json) AS wanted (role, password)
\gexec

-- Only a member of a role may create a database for it, or take over what it owned; superusers count as members of
-- every role.
SELECT format('GRANT %I TO CURRENT_USER', role)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role)
LEFT JOIN pg_database ON datname = regexp_replace(role, '_owner$', '')
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND (role LIKE '%\_owner') <> (datdba IS NOT NULL AND pg_get_userbyid(datdba) = role)
\gexec

-- Text compares by code point, and case follows Unicode, whatever the server's locale: built in from 17 on, by the C
-- library before that.
SELECT format(
    'CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8'' %s',
    name,
    name || '_owner',
    CASE
        WHEN current_setting('server_version_num')::int >= 170000
            THEN 'LOCALE_PROVIDER builtin BUILTIN_LOCALE ''C.UTF-8'' LOCALE ''C'''
        ELSE 'LC_COLLATE ''C'' LC_CTYPE ''C.UTF-8'''
    END
)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (name)
WHERE name NOT LIKE '%\_owner' AND NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;

-- In each database: only its two roles may connect, and the service's may look into the schema. What it may do with each
-- table is granted after the migrations. Where an earlier version made the database, the service's role owned it all: the
-- owner takes it over, and until the next migrations the service may read and write every table.
SELECT $statement$
DO $do$
DECLARE
    service text := current_database();
    owner text := service || '_owner';
    granted text[] := ARRAY(
        SELECT 'SELECT, INSERT, UPDATE, DELETE ON ' || oid::regclass
        FROM pg_class WHERE relowner = service::regrole AND relkind IN ('r', 'p', 'v', 'm', 'f')
        UNION ALL
        SELECT 'USAGE ON SEQUENCE ' || oid::regclass
        FROM pg_class WHERE relowner = service::regrole AND relkind = 'S'
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i')
        UNION ALL
        SELECT 'USAGE ON SCHEMA ' || oid::regnamespace FROM pg_namespace WHERE nspowner = service::regrole);
    what text;
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = service AND datdba = service::regrole) THEN
        EXECUTE format('ALTER DATABASE %I OWNER TO %I', service, owner);
        EXECUTE format('REASSIGN OWNED BY %I TO %I', service, owner);
    END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %1$I FROM PUBLIC, %1$I', service);
    EXECUTE format('REVOKE ALL ON SCHEMA public FROM PUBLIC, %I', service);
    FOREACH what IN ARRAY ARRAY[format('CONNECT ON DATABASE %I', service), 'USAGE ON SCHEMA public'] || granted LOOP
        EXECUTE format('GRANT %s TO %I', what, service);
    END LOOP;
END $do$;
$statement$ AS divide_rights \gset

\connect users \\ :divide_rights
\connect orders \\ :divide_rights
\connect tasks \\ :divide_rights
\connect sites \\ :divide_rights
