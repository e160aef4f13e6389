-- Tables for the mapping "odd\nshop".
-- Types: inferred from 1 document (1 more did not fit and were passed over), unless the mapping gives one.
-- A sample proves nothing about what comes: only keys are NOT NULL.

CREATE SCHEMA IF NOT EXISTS sales;

-- Catalogues

CREATE TABLE tag (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label varchar(9) NOT NULL UNIQUE,
    color text
);

-- A sync adds no rows to it: fill it first.
CREATE TABLE currency (
    code text PRIMARY KEY
);

-- Documents

CREATE TABLE sales."Order" (
    year        bigint NOT NULL,
    number      varchar(6) NOT NULL,
    "user"      text,
    note        text, -- the sample has no value
    currency_id text REFERENCES currency (code),
    hash        text,
    seen        timestamptz,
    PRIMARY KEY (year, number)
);
CREATE INDEX ON sales."Order" (currency_id);

-- Lists

CREATE TABLE sales.line (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_year   bigint NOT NULL,
    order_number varchar(6) NOT NULL,
    no           bigint NOT NULL,
    extra        jsonb,
    tag          bigint REFERENCES tag (id),
    UNIQUE (order_year, order_number, no),
    FOREIGN KEY (order_year, order_number) REFERENCES sales."Order" (year, number) ON DELETE CASCADE
);
CREATE INDEX ON sales.line (tag);

CREATE TABLE serial (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    line_id bigint NOT NULL REFERENCES sales.line (id) ON DELETE CASCADE,
    code    text
);
CREATE INDEX ON serial (line_id);

CREATE TABLE rate (
    line_id  bigint NOT NULL REFERENCES sales.line (id) ON DELETE CASCADE,
    currency text NOT NULL,
    rate     numeric,
    PRIMARY KEY (line_id, currency)
);

CREATE TABLE parcel (
    order_year   bigint NOT NULL,
    order_number varchar(6) NOT NULL,
    barcode      text PRIMARY KEY,
    sent         timestamptz,
    FOREIGN KEY (order_year, order_number) REFERENCES sales."Order" (year, number) ON DELETE CASCADE
);
CREATE INDEX ON parcel (order_year, order_number);

CREATE TABLE note (
    order_year   bigint NOT NULL,
    order_number varchar(6) NOT NULL,
    note_id      bigint PRIMARY KEY,
    text         text,
    FOREIGN KEY (order_year, order_number) REFERENCES sales."Order" (year, number) ON DELETE CASCADE
);
CREATE INDEX ON note (order_year, order_number);

-- Links

CREATE TABLE line_tag (
    line_id bigint NOT NULL REFERENCES sales.line (id) ON DELETE CASCADE,
    tag_id  bigint NOT NULL REFERENCES tag (id),
    weight  bigint,
    PRIMARY KEY (line_id, tag_id)
);
CREATE INDEX ON line_tag (tag_id);
