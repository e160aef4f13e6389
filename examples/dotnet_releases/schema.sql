-- The release index of .NET: channels hold releases, releases hold SDKs, SDKs hold files.
--
-- A key is unique within its parent and starts with it, so that the constraint of each key is the index
-- of the foreign key too.

CREATE TABLE channel (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_version     text NOT NULL UNIQUE,
    latest_release      text NOT NULL,
    latest_release_date date,
    latest_runtime      text NOT NULL,
    latest_sdk          text NOT NULL,
    support_phase       text NOT NULL,
    release_type        text NOT NULL,
    eol_date            date,
    lifecycle_policy    text
);

CREATE TABLE release (
    id                             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_id                     bigint NOT NULL REFERENCES channel (id),
    release_version                text NOT NULL,
    release_date                   date NOT NULL,
    security                       boolean NOT NULL,
    release_notes                  text,
    runtime_version                text NOT NULL,
    runtime_version_display        text,
    runtime_vs_version             text,
    runtime_vs_mac_version         text,
    runtime_vs_support             text,
    sdk_version                    text NOT NULL,
    sdk_vs_version                 text,
    sdk_vs_support                 text,
    aspnetcore_version             text NOT NULL,
    aspnetcore_version_display     text,
    aspnetcore_vs_version          text,
    windowsdesktop_version         text NOT NULL,
    windowsdesktop_version_display text,
    UNIQUE (channel_id, release_version)
);

CREATE TABLE sdk (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id      bigint NOT NULL REFERENCES release (id),
    version         text NOT NULL,
    version_display text,
    runtime_version text,
    vs_version      text,
    vs_mac_version  text,
    vs_support      text,
    vs_mac_support  text,
    csharp_version  text,
    fsharp_version  text,
    vb_version      text,
    UNIQUE (release_id, version)
);

CREATE TABLE sdk_file (
    sdk_id bigint NOT NULL REFERENCES sdk (id),
    name   text NOT NULL,
    rid    text,
    url    text NOT NULL,
    hash   text NOT NULL,
    PRIMARY KEY (sdk_id, name)
);

CREATE TABLE runtime_file (
    release_id bigint NOT NULL REFERENCES release (id),
    name       text NOT NULL,
    rid        text,
    url        text NOT NULL,
    hash       text NOT NULL,
    PRIMARY KEY (release_id, name)
);

CREATE TABLE aspnetcore_file (
    release_id bigint NOT NULL REFERENCES release (id),
    name       text NOT NULL,
    rid        text,
    url        text NOT NULL,
    hash       text NOT NULL,
    akams      text,
    PRIMARY KEY (release_id, name)
);

CREATE TABLE windowsdesktop_file (
    release_id bigint NOT NULL REFERENCES release (id),
    name       text NOT NULL,
    rid        text,
    url        text NOT NULL,
    hash       text NOT NULL,
    PRIMARY KEY (release_id, name)
);

CREATE TABLE aspnetcore_module (
    release_id bigint NOT NULL REFERENCES release (id),
    version    text NOT NULL,
    PRIMARY KEY (release_id, version)
);

CREATE TABLE cve (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    url  text NOT NULL
);

CREATE TABLE release_cve (
    release_id bigint NOT NULL REFERENCES release (id),
    cve_id     bigint NOT NULL REFERENCES cve (id),
    PRIMARY KEY (release_id, cve_id)
);
CREATE INDEX ON release_cve (cve_id);
