-- A database and its owner for each service, on PostgreSQL 15 to 18. Run it as a superuser (or as an administrator with
-- CREATEROLE and CREATEDB) with psql; running it again changes only the passwords. README.md shows how.
--
-- Passwords come from the environment (USERS_DATABASE_PASSWORD) or from psql variables (users_password). Another
-- service is another line in each of these three blocks.

\set ON_ERROR_STOP on
\set QUIET on

\getenv users_password USERS_DATABASE_PASSWORD
\getenv orders_password ORDERS_DATABASE_PASSWORD
\getenv tasks_password TASKS_DATABASE_PASSWORD

\if :{?users_password} \else \set users_password '' \endif
\if :{?orders_password} \else \set orders_password '' \endif
\if :{?tasks_password} \else \set tasks_password '' \endif

SELECT set_config('siteworks.passwords', json_build_object(
    'users', :'users_password',
    'orders', :'orders_password',
    'tasks', :'tasks_password'
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

-- Only a member of a role may create a database for it; superusers count as members of every role.
SELECT format('GRANT %I TO CURRENT_USER', role)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role)
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (SELECT FROM pg_database WHERE datname = role)
\gexec

-- Text compares by code point, and case follows Unicode, whatever the server's locale: built in from 17 on, by the C
-- library before that.
SELECT format(
    'CREATE DATABASE %1$I OWNER %1$I TEMPLATE template0 ENCODING ''UTF8'' %2$s',
    role,
    CASE
        WHEN current_setting('server_version_num')::int >= 170000
            THEN 'LOCALE_PROVIDER builtin BUILTIN_LOCALE ''C.UTF-8'' LOCALE ''C'''
        ELSE 'LC_COLLATE ''C'' LC_CTYPE ''C.UTF-8'''
    END
)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = role)
\gexec

-- Owners keep their rights; all other roles may not even connect.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', role)
FROM json_object_keys(current_setting('siteworks.passwords')::json) AS wanted (role)
\gexec
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
