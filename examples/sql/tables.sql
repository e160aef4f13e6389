-- The tables of a small shop, and the mapping that says where each field of an order goes. All examples of this folder use
-- them. The core comes first: psql -f sql/rowdelta--0.3.0.sql

CREATE TABLE orders (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number        text NOT NULL UNIQUE,
    customer_name text,
    placed        timestamptz,
    -- Not in the mapping: what the shop's own people write stays.
    note          text
);

CREATE TABLE order_lines (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    sku      text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    price    numeric(10, 2),
    UNIQUE (order_id, sku)
);

CREATE TABLE tag (
    id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label text NOT NULL UNIQUE
);

CREATE TABLE order_tag (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    tag_id   integer NOT NULL REFERENCES tag,
    PRIMARY KEY (order_id, tag_id)
);

-- Deleting a tag, or asking for the orders that have it, reads the table from this side.
CREATE INDEX ON order_tag (tag_id);

-- The reference is docs/mapping.md; what TOML says there JSON says here.
SELECT rowdelta.register($$
{
  "version": 1,
  "name": "shop",
  "root": {
    "table": "orders", "key": "number", "id": "id",
    "columns": { "number": "number", "customer_name": "customer.name", "placed": "placedAt" },
    "children": [
      { "name": "lines", "table": "order_lines", "parent": "order_id", "key": "sku",
        "columns": { "sku": "sku", "quantity": "qty", "price": "price" } }
    ],
    "links": [
      { "name": "tags", "table": "order_tag", "parent": "order_id",
        "target": "tag_id", "lookup": "tag", "match": { "label": "." } }
    ]
  },
  "lookups": {
    "tag": { "table": "tag", "id": "id", "key": "label", "missing": "insert" }
  }
}
$$) AS mapping;
