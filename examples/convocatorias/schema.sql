-- Grant calls in normal form: one table for calls, one for each 1-N list, and for each list of
-- catalogue entries a catalogue and a table of pairs.
--
-- Every foreign key has an index on the referencing side. Without it each DELETE of a call would
-- read the whole referencing table; a table of pairs has one by its primary key for the call, and
-- needs a second one for the catalogue.

-- Catalogues

CREATE TABLE tipo_convocatoria (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE finalidad (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE reglamento (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE instrumento (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE tipo_beneficiario (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE sector (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    codigo      text NOT NULL,
    descripcion text NOT NULL,
    UNIQUE (codigo, descripcion)
);

CREATE TABLE region (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE fondo (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE objetivo (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

CREATE TABLE sector_producto (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    descripcion text NOT NULL UNIQUE
);

-- Calls

CREATE TABLE convocatoria (
    id                            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    codigo_bdns                   text NOT NULL UNIQUE,
    id_bdns                       integer NOT NULL UNIQUE,
    organo_nivel1                 text NOT NULL,
    organo_nivel2                 text NOT NULL,
    organo_nivel3                 text,
    sede_electronica              text,
    fecha_recepcion               date NOT NULL,
    tipo_convocatoria_id          bigint NOT NULL REFERENCES tipo_convocatoria (id),
    presupuesto_total             numeric(14,2) NOT NULL,
    mrr                           boolean NOT NULL,
    descripcion                   text NOT NULL,
    descripcion_leng              text,
    finalidad_id                  bigint NOT NULL REFERENCES finalidad (id),
    descripcion_bases_reguladoras text NOT NULL,
    url_bases_reguladoras         text,
    se_publica_diario_oficial     boolean NOT NULL,
    abierto                       boolean NOT NULL,
    fecha_inicio_solicitud        date,
    fecha_fin_solicitud           date,
    text_inicio                   text,
    text_fin                      text,
    ayuda_estado                  text,
    url_ayuda_estado              text,
    reglamento_id                 bigint REFERENCES reglamento (id),
    reglamento_orden              integer,
    advertencia                   text NOT NULL,
    -- Filled by later steps, or as marks; the feed does not know them.
    resumen_ia                    text,
    content_hash                  text,
    last_synced_at                timestamptz
);
CREATE INDEX ON convocatoria (tipo_convocatoria_id);
CREATE INDEX ON convocatoria (finalidad_id);
CREATE INDEX ON convocatoria (reglamento_id);

-- 1-N lists

CREATE TABLE documento (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    id_oficial      bigint NOT NULL UNIQUE,
    descripcion     text NOT NULL,
    nombre_fic      text NOT NULL,
    longitud        bigint NOT NULL,
    dat_mod         date NOT NULL,
    dat_publicacion date,
    -- Filled by the step that downloads the file. Kept, because the row is kept.
    storage_path    text,
    storage_url     text
);
CREATE INDEX ON documento (convocatoria_id);

CREATE TABLE anuncio (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    convocatoria_id    bigint NOT NULL REFERENCES convocatoria (id),
    num_anuncio        bigint NOT NULL UNIQUE,
    titulo             text NOT NULL,
    titulo_leng        text,
    texto              text NOT NULL,
    texto_leng         text,
    url                text,
    cve                text,
    des_diario_oficial text NOT NULL,
    dat_publicacion    date
);
CREATE INDEX ON anuncio (convocatoria_id);

-- M-N lists

CREATE TABLE convocatoria_instrumento (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    instrumento_id bigint NOT NULL REFERENCES instrumento (id),
    PRIMARY KEY (convocatoria_id, instrumento_id)
);
CREATE INDEX ON convocatoria_instrumento (instrumento_id);

CREATE TABLE convocatoria_tipo_beneficiario (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    tipo_beneficiario_id bigint NOT NULL REFERENCES tipo_beneficiario (id),
    PRIMARY KEY (convocatoria_id, tipo_beneficiario_id)
);
CREATE INDEX ON convocatoria_tipo_beneficiario (tipo_beneficiario_id);

CREATE TABLE convocatoria_sector (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    sector_id bigint NOT NULL REFERENCES sector (id),
    PRIMARY KEY (convocatoria_id, sector_id)
);
CREATE INDEX ON convocatoria_sector (sector_id);

CREATE TABLE convocatoria_region (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    region_id bigint NOT NULL REFERENCES region (id),
    PRIMARY KEY (convocatoria_id, region_id)
);
CREATE INDEX ON convocatoria_region (region_id);

CREATE TABLE convocatoria_fondo (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    fondo_id bigint NOT NULL REFERENCES fondo (id),
    PRIMARY KEY (convocatoria_id, fondo_id)
);
CREATE INDEX ON convocatoria_fondo (fondo_id);

CREATE TABLE convocatoria_objetivo (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    objetivo_id bigint NOT NULL REFERENCES objetivo (id),
    PRIMARY KEY (convocatoria_id, objetivo_id)
);
CREATE INDEX ON convocatoria_objetivo (objetivo_id);

CREATE TABLE convocatoria_sector_producto (
    convocatoria_id bigint NOT NULL REFERENCES convocatoria (id),
    sector_producto_id bigint NOT NULL REFERENCES sector_producto (id),
    PRIMARY KEY (convocatoria_id, sector_producto_id)
);
CREATE INDEX ON convocatoria_sector_producto (sector_producto_id);
