-- Delete and insert, in SQL, for the tables of examples/convocatorias: what one writes without rowdelta, set-based and with
-- prepared plans. Catalogues get what they lack, roots are upserted, and the lists of all calls are deleted and inserted.
CREATE FUNCTION recreate(documents jsonb) RETURNS void LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    v_ids bigint[];
BEGIN
    INSERT INTO tipo_convocatoria (descripcion) SELECT DISTINCT d ->> 'tipoConvocatoria' FROM jsonb_array_elements(documents) d ON CONFLICT DO NOTHING;
    INSERT INTO finalidad (descripcion) SELECT DISTINCT d ->> 'descripcionFinalidad' FROM jsonb_array_elements(documents) d ON CONFLICT DO NOTHING;
    INSERT INTO reglamento (descripcion) SELECT DISTINCT d #>> '{reglamento,descripcion}' FROM jsonb_array_elements(documents) d
    WHERE d #>> '{reglamento,descripcion}' IS NOT NULL ON CONFLICT DO NOTHING;
    WITH roots AS (
        INSERT INTO convocatoria AS c (
            codigo_bdns, id_bdns, organo_nivel1, organo_nivel2, organo_nivel3, sede_electronica, fecha_recepcion, tipo_convocatoria_id,
            presupuesto_total, mrr, descripcion, descripcion_leng, finalidad_id, descripcion_bases_reguladoras, url_bases_reguladoras,
            se_publica_diario_oficial, abierto, fecha_inicio_solicitud, fecha_fin_solicitud, text_inicio, text_fin, ayuda_estado,
            url_ayuda_estado, reglamento_id, reglamento_orden, advertencia)
        SELECT DISTINCT ON (d."codigoBDNS")
            d."codigoBDNS", d.id, d.organo ->> 'nivel1', d.organo ->> 'nivel2', d.organo ->> 'nivel3', d."sedeElectronica",
            d."fechaRecepcion", t.id, d."presupuestoTotal", d.mrr, d.descripcion, d."descripcionLeng", f.id,
            d."descripcionBasesReguladoras", d."urlBasesReguladoras", d."sePublicaDiarioOficial", d.abierto, d."fechaInicioSolicitud",
            d."fechaFinSolicitud", d."textInicio", d."textFin", d."ayudaEstado", d."urlAyudaEstado", r.id,
            (d.reglamento ->> 'orden')::integer, d.advertencia
        FROM jsonb_to_recordset(documents) AS d (
            "codigoBDNS" text, id integer, organo jsonb, "sedeElectronica" text, "fechaRecepcion" date, "tipoConvocatoria" text,
            "presupuestoTotal" numeric, mrr boolean, descripcion text, "descripcionLeng" text, "descripcionFinalidad" text,
            "descripcionBasesReguladoras" text, "urlBasesReguladoras" text, "sePublicaDiarioOficial" boolean, abierto boolean,
            "fechaInicioSolicitud" date, "fechaFinSolicitud" date, "textInicio" text, "textFin" text, "ayudaEstado" text,
            "urlAyudaEstado" text, reglamento jsonb, advertencia text)
        JOIN tipo_convocatoria t ON t.descripcion = d."tipoConvocatoria"
        JOIN finalidad f ON f.descripcion = d."descripcionFinalidad"
        LEFT JOIN reglamento r ON r.descripcion = d.reglamento ->> 'descripcion'
        ON CONFLICT (codigo_bdns) DO UPDATE SET
            id_bdns = excluded.id_bdns, organo_nivel1 = excluded.organo_nivel1, organo_nivel2 = excluded.organo_nivel2,
            organo_nivel3 = excluded.organo_nivel3, sede_electronica = excluded.sede_electronica,
            fecha_recepcion = excluded.fecha_recepcion, tipo_convocatoria_id = excluded.tipo_convocatoria_id,
            presupuesto_total = excluded.presupuesto_total, mrr = excluded.mrr, descripcion = excluded.descripcion,
            descripcion_leng = excluded.descripcion_leng, finalidad_id = excluded.finalidad_id,
            descripcion_bases_reguladoras = excluded.descripcion_bases_reguladoras,
            url_bases_reguladoras = excluded.url_bases_reguladoras, se_publica_diario_oficial = excluded.se_publica_diario_oficial,
            abierto = excluded.abierto, fecha_inicio_solicitud = excluded.fecha_inicio_solicitud,
            fecha_fin_solicitud = excluded.fecha_fin_solicitud, text_inicio = excluded.text_inicio, text_fin = excluded.text_fin,
            ayuda_estado = excluded.ayuda_estado, url_ayuda_estado = excluded.url_ayuda_estado,
            reglamento_id = excluded.reglamento_id, reglamento_orden = excluded.reglamento_orden, advertencia = excluded.advertencia
        RETURNING c.id)
    SELECT array_agg(id) INTO v_ids FROM roots;
    DELETE FROM documento WHERE convocatoria_id = ANY (v_ids);
    DELETE FROM anuncio WHERE convocatoria_id = ANY (v_ids);
    INSERT INTO documento (convocatoria_id, id_oficial, descripcion, nombre_fic, longitud, dat_mod, dat_publicacion)
    SELECT DISTINCT ON (e.id) c.id, e.id, e.descripcion, e."nombreFic", e.long, e."datMod", e."datPublicacion"
    FROM jsonb_array_elements(documents) d JOIN convocatoria c ON c.codigo_bdns = d ->> 'codigoBDNS'
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(nullif(d -> 'documentos', 'null'), '[]')) AS e (
        id bigint, descripcion text, "nombreFic" text, long bigint, "datMod" date, "datPublicacion" date);
    INSERT INTO anuncio (convocatoria_id, num_anuncio, titulo, titulo_leng, texto, texto_leng, url, cve, des_diario_oficial, dat_publicacion)
    SELECT DISTINCT ON (e."numAnuncio") c.id, e."numAnuncio", e.titulo, e."tituloLeng", e.texto, e."textoLeng", e.url, e.cve, e."desDiarioOficial", e."datPublicacion"
    FROM jsonb_array_elements(documents) d JOIN convocatoria c ON c.codigo_bdns = d ->> 'codigoBDNS'
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(nullif(d -> 'anuncios', 'null'), '[]')) AS e (
        "numAnuncio" bigint, titulo text, "tituloLeng" text, texto text, "textoLeng" text, url text, cve text,
        "desDiarioOficial" text, "datPublicacion" date);
    PERFORM recreate_pairs(documents, v_ids, p.list, p.catalogue)
    FROM (VALUES ('instrumentos', 'instrumento'), ('tiposBeneficiarios', 'tipo_beneficiario'), ('regiones', 'region'),
                 ('fondos', 'fondo'), ('objetivos', 'objetivo'), ('sectoresProductos', 'sector_producto')) AS p (list, catalogue);
    DELETE FROM convocatoria_sector WHERE convocatoria_id = ANY (v_ids);
    INSERT INTO sector (codigo, descripcion) SELECT DISTINCT e ->> 'codigo', e ->> 'descripcion' FROM jsonb_array_elements(documents) d
    CROSS JOIN LATERAL jsonb_array_elements(coalesce(nullif(d -> 'sectores', 'null'), '[]')) e ON CONFLICT DO NOTHING;
    INSERT INTO convocatoria_sector (convocatoria_id, sector_id)
    SELECT DISTINCT c.id, s.id FROM jsonb_array_elements(documents) d JOIN convocatoria c ON c.codigo_bdns = d ->> 'codigoBDNS'
    CROSS JOIN LATERAL jsonb_array_elements(coalesce(nullif(d -> 'sectores', 'null'), '[]')) e
    JOIN sector s ON s.codigo = e ->> 'codigo' AND s.descripcion = e ->> 'descripcion';
END
$$;

CREATE FUNCTION recreate_pairs(documents jsonb, ids bigint[], list text, catalogue text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DELETE FROM convocatoria_%1$s WHERE convocatoria_id = ANY ($1)', catalogue) USING ids;
    EXECUTE format('INSERT INTO %1$s (descripcion) SELECT DISTINCT e ->> ''descripcion'' FROM jsonb_array_elements($1) d CROSS JOIN LATERAL
        jsonb_array_elements(coalesce(nullif(d -> %2$L, ''null''), ''[]'')) e ON CONFLICT DO NOTHING', catalogue, list) USING documents;
    EXECUTE format('INSERT INTO convocatoria_%1$s (convocatoria_id, %1$s_id) SELECT DISTINCT c.id, k.id
        FROM jsonb_array_elements($1) d JOIN convocatoria c ON c.codigo_bdns = d ->> ''codigoBDNS'' CROSS JOIN LATERAL
        jsonb_array_elements(coalesce(nullif(d -> %2$L, ''null''), ''[]'')) e JOIN %1$s k ON k.descripcion = e ->> ''descripcion''',
        catalogue, list) USING documents;
END
$$;
