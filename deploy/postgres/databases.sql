-- The three databases and their owners, on PostgreSQL 15 to 18. Run it as a superuser (or as an administrator with
-- CREATEROLE and CREATEDB) with psql; running it again changes nothing but the passwords. README.md shows how.
--
-- Passwords come as psql variables, or from the environment:
--     users_password   USERS_DATABASE_PASSWORD
--     orders_password  ORDERS_DATABASE_PASSWORD
--     tasks_password   TASKS_DATABASE_PASSWORD

\set ON_ERROR_STOP on
\set QUIET on

\getenv users_password USERS_DATABASE_PASSWORD
\getenv orders_password ORDERS_DATABASE_PASSWORD
\getenv tasks_password TASKS_DATABASE_PASSWORD

\if :{?users_password} \else
    DO $$ BEGIN RAISE EXCEPTION 'no password for the role users: set USERS_DATABASE_PASSWORD'; END $$;
\endif
\if :{?orders_password} \else
    DO $$ BEGIN RAISE EXCEPTION 'no password for the role orders: set ORDERS_DATABASE_PASSWORD'; END $$;
\endif
\if :{?tasks_password} \else
    DO $$ BEGIN RAISE EXCEPTION 'no password for the role tasks: set TASKS_DATABASE_PASSWORD'; END $$;
\endif

-- Creating a role and setting its password are two statements, so that both work when the role is there already.
SELECT format('CREATE ROLE %I LOGIN', wanted.role)
FROM (VALUES ('users'), ('orders'), ('tasks')) AS wanted (role)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.role)
\gexec

-- A role of the same name that somebody gave more rights loses them. Only asked for where needed: an administrator
-- who is not a superuser may not even mention these attributes.
SELECT format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', rolname)
FROM pg_roles
WHERE rolname IN ('users', 'orders', 'tasks')
  AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
\gexec

SET password_encryption = 'scram-sha-256';
ALTER ROLE users LOGIN PASSWORD :'users_password';
ALTER ROLE orders LOGIN PASSWORD :'orders_password';
ALTER ROLE tasks LOGIN PASSWORD :'tasks_password';

-- Only a member of a role may create a database for it; a superuser is one without saying so.
SELECT format('GRANT %I TO CURRENT_USER', wanted.role)
FROM (VALUES ('users'), ('orders'), ('tasks')) AS wanted (role)
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (SELECT FROM pg_database WHERE datname = wanted.role)
\gexec

-- Text compares by code point everywhere, and upper and lower case follow Unicode whatever the server's own locale:
-- built in from 17 on, before that by the C library.
SELECT format(
    'CREATE DATABASE %1$I OWNER %1$I TEMPLATE template0 ENCODING ''UTF8'' %2$s',
    wanted.role,
    CASE
        WHEN current_setting('server_version_num')::int >= 170000
            THEN 'LOCALE_PROVIDER builtin BUILTIN_LOCALE ''C.UTF-8'' LOCALE ''C'''
        ELSE 'LC_COLLATE ''C'' LC_CTYPE ''C.UTF-8'''
    END
)
FROM (VALUES ('users'), ('orders'), ('tasks')) AS wanted (role)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = wanted.role)
\gexec

-- Owners keep their rights; everybody else, the other two roles included, may not even connect.
REVOKE ALL ON DATABASE users, orders, tasks FROM PUBLIC;
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
