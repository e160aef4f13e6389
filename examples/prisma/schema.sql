-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "public";

-- CreateEnum
CREATE TYPE "TipoConvocatoria" AS ENUM ('Concesión directa - instrumental', 'Concesión directa - canónica', 'Concurrencia competitiva - canónica');

-- CreateEnum
CREATE TYPE "EstadoResumen" AS ENUM ('PENDIENTE', 'HECHO', 'FALLIDO');

-- CreateTable
CREATE TABLE "Convocatoria" (
    "id" SERIAL NOT NULL,
    "codigoBDNS" TEXT NOT NULL,
    "idOficial" INTEGER NOT NULL,
    "titulo" TEXT NOT NULL,
    "tituloCooficial" TEXT,
    "tipo" "TipoConvocatoria" NOT NULL,
    "organoId" INTEGER NOT NULL,
    "unidad" TEXT,
    "finalidadId" INTEGER NOT NULL,
    "reglamentoId" INTEGER,
    "fechaRecepcion" TIMESTAMP(3) NOT NULL,
    "fechaInicioSolicitud" TIMESTAMP(3),
    "fechaFinSolicitud" TIMESTAMP(3),
    "textoInicio" TEXT,
    "textoFin" TEXT,
    "presupuestoTotal" DOUBLE PRECISION NOT NULL,
    "mrr" BOOLEAN NOT NULL,
    "abierta" BOOLEAN NOT NULL,
    "enDiarioOficial" BOOLEAN NOT NULL,
    "sedeElectronica" TEXT,
    "basesReguladoras" TEXT NOT NULL,
    "urlBasesReguladoras" TEXT,
    "ayudaEstado" TEXT,
    "urlAyudaEstado" TEXT,
    "advertencia" TEXT NOT NULL,
    "resumen" TEXT,
    "estadoResumen" "EstadoResumen" NOT NULL DEFAULT 'PENDIENTE',
    "visitas" INTEGER NOT NULL DEFAULT 0,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "Convocatoria_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Documento" (
    "id" SERIAL NOT NULL,
    "idOficial" INTEGER NOT NULL,
    "convocatoriaId" INTEGER NOT NULL,
    "nombreFic" TEXT NOT NULL,
    "descripcion" TEXT NOT NULL,
    "longitud" INTEGER NOT NULL,
    "fechaMod" TIMESTAMP(3) NOT NULL,
    "fechaPublicacion" TIMESTAMP(3),
    "storagePath" TEXT,
    "descargadoEn" TIMESTAMP(3),
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Documento_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Anuncio" (
    "id" SERIAL NOT NULL,
    "numAnuncio" INTEGER NOT NULL,
    "convocatoriaId" INTEGER NOT NULL,
    "titulo" TEXT NOT NULL,
    "tituloCooficial" TEXT,
    "texto" TEXT NOT NULL,
    "textoCooficial" TEXT,
    "url" TEXT,
    "cve" TEXT,
    "diarioOficial" TEXT NOT NULL,
    "fechaPublicacion" TIMESTAMP(3),
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Anuncio_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Organo" (
    "id" SERIAL NOT NULL,
    "nivel1" TEXT NOT NULL,
    "nivel2" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Organo_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Finalidad" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Finalidad_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Reglamento" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Reglamento_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Instrumento" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Instrumento_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Beneficiario" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Beneficiario_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Actividad" (
    "id" SERIAL NOT NULL,
    "codigo" TEXT NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Actividad_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Region" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Region_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Fondo" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Fondo_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Objetivo" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "Objetivo_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "SectorProducto" (
    "id" SERIAL NOT NULL,
    "descripcion" TEXT NOT NULL,

    CONSTRAINT "SectorProducto_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Favorito" (
    "id" SERIAL NOT NULL,
    "usuario" TEXT NOT NULL,
    "convocatoriaId" INTEGER NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Favorito_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "_ConvocatoriaToInstrumento" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ConvocatoriaToInstrumento_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_ConvocatoriaToRegion" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ConvocatoriaToRegion_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_ConvocatoriaToFondo" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ConvocatoriaToFondo_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_ConvocatoriaToObjetivo" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ConvocatoriaToObjetivo_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_ConvocatoriaToSectorProducto" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ConvocatoriaToSectorProducto_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_BeneficiarioToConvocatoria" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_BeneficiarioToConvocatoria_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateTable
CREATE TABLE "_ActividadToConvocatoria" (
    "A" INTEGER NOT NULL,
    "B" INTEGER NOT NULL,

    CONSTRAINT "_ActividadToConvocatoria_AB_pkey" PRIMARY KEY ("A","B")
);

-- CreateIndex
CREATE UNIQUE INDEX "Convocatoria_codigoBDNS_key" ON "Convocatoria"("codigoBDNS");

-- CreateIndex
CREATE UNIQUE INDEX "Convocatoria_idOficial_key" ON "Convocatoria"("idOficial");

-- CreateIndex
CREATE INDEX "Convocatoria_organoId_idx" ON "Convocatoria"("organoId");

-- CreateIndex
CREATE INDEX "Convocatoria_finalidadId_idx" ON "Convocatoria"("finalidadId");

-- CreateIndex
CREATE INDEX "Convocatoria_reglamentoId_idx" ON "Convocatoria"("reglamentoId");

-- CreateIndex
CREATE INDEX "Convocatoria_fechaFinSolicitud_idx" ON "Convocatoria"("fechaFinSolicitud");

-- CreateIndex
CREATE UNIQUE INDEX "Documento_idOficial_key" ON "Documento"("idOficial");

-- CreateIndex
CREATE INDEX "Documento_convocatoriaId_idx" ON "Documento"("convocatoriaId");

-- CreateIndex
CREATE UNIQUE INDEX "Anuncio_numAnuncio_key" ON "Anuncio"("numAnuncio");

-- CreateIndex
CREATE INDEX "Anuncio_convocatoriaId_idx" ON "Anuncio"("convocatoriaId");

-- CreateIndex
CREATE UNIQUE INDEX "Organo_nivel1_nivel2_key" ON "Organo"("nivel1", "nivel2");

-- CreateIndex
CREATE UNIQUE INDEX "Finalidad_descripcion_key" ON "Finalidad"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Reglamento_descripcion_key" ON "Reglamento"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Instrumento_descripcion_key" ON "Instrumento"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Beneficiario_descripcion_key" ON "Beneficiario"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Actividad_codigo_descripcion_key" ON "Actividad"("codigo", "descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Region_descripcion_key" ON "Region"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Fondo_descripcion_key" ON "Fondo"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "Objetivo_descripcion_key" ON "Objetivo"("descripcion");

-- CreateIndex
CREATE UNIQUE INDEX "SectorProducto_descripcion_key" ON "SectorProducto"("descripcion");

-- CreateIndex
CREATE INDEX "Favorito_convocatoriaId_idx" ON "Favorito"("convocatoriaId");

-- CreateIndex
CREATE UNIQUE INDEX "Favorito_usuario_convocatoriaId_key" ON "Favorito"("usuario", "convocatoriaId");

-- CreateIndex
CREATE INDEX "_ConvocatoriaToInstrumento_B_index" ON "_ConvocatoriaToInstrumento"("B");

-- CreateIndex
CREATE INDEX "_ConvocatoriaToRegion_B_index" ON "_ConvocatoriaToRegion"("B");

-- CreateIndex
CREATE INDEX "_ConvocatoriaToFondo_B_index" ON "_ConvocatoriaToFondo"("B");

-- CreateIndex
CREATE INDEX "_ConvocatoriaToObjetivo_B_index" ON "_ConvocatoriaToObjetivo"("B");

-- CreateIndex
CREATE INDEX "_ConvocatoriaToSectorProducto_B_index" ON "_ConvocatoriaToSectorProducto"("B");

-- CreateIndex
CREATE INDEX "_BeneficiarioToConvocatoria_B_index" ON "_BeneficiarioToConvocatoria"("B");

-- CreateIndex
CREATE INDEX "_ActividadToConvocatoria_B_index" ON "_ActividadToConvocatoria"("B");

-- AddForeignKey
ALTER TABLE "Convocatoria" ADD CONSTRAINT "Convocatoria_organoId_fkey" FOREIGN KEY ("organoId") REFERENCES "Organo"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Convocatoria" ADD CONSTRAINT "Convocatoria_finalidadId_fkey" FOREIGN KEY ("finalidadId") REFERENCES "Finalidad"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Convocatoria" ADD CONSTRAINT "Convocatoria_reglamentoId_fkey" FOREIGN KEY ("reglamentoId") REFERENCES "Reglamento"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Documento" ADD CONSTRAINT "Documento_convocatoriaId_fkey" FOREIGN KEY ("convocatoriaId") REFERENCES "Convocatoria"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Anuncio" ADD CONSTRAINT "Anuncio_convocatoriaId_fkey" FOREIGN KEY ("convocatoriaId") REFERENCES "Convocatoria"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Favorito" ADD CONSTRAINT "Favorito_convocatoriaId_fkey" FOREIGN KEY ("convocatoriaId") REFERENCES "Convocatoria"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToInstrumento" ADD CONSTRAINT "_ConvocatoriaToInstrumento_A_fkey" FOREIGN KEY ("A") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToInstrumento" ADD CONSTRAINT "_ConvocatoriaToInstrumento_B_fkey" FOREIGN KEY ("B") REFERENCES "Instrumento"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToRegion" ADD CONSTRAINT "_ConvocatoriaToRegion_A_fkey" FOREIGN KEY ("A") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToRegion" ADD CONSTRAINT "_ConvocatoriaToRegion_B_fkey" FOREIGN KEY ("B") REFERENCES "Region"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToFondo" ADD CONSTRAINT "_ConvocatoriaToFondo_A_fkey" FOREIGN KEY ("A") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToFondo" ADD CONSTRAINT "_ConvocatoriaToFondo_B_fkey" FOREIGN KEY ("B") REFERENCES "Fondo"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToObjetivo" ADD CONSTRAINT "_ConvocatoriaToObjetivo_A_fkey" FOREIGN KEY ("A") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToObjetivo" ADD CONSTRAINT "_ConvocatoriaToObjetivo_B_fkey" FOREIGN KEY ("B") REFERENCES "Objetivo"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToSectorProducto" ADD CONSTRAINT "_ConvocatoriaToSectorProducto_A_fkey" FOREIGN KEY ("A") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ConvocatoriaToSectorProducto" ADD CONSTRAINT "_ConvocatoriaToSectorProducto_B_fkey" FOREIGN KEY ("B") REFERENCES "SectorProducto"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_BeneficiarioToConvocatoria" ADD CONSTRAINT "_BeneficiarioToConvocatoria_A_fkey" FOREIGN KEY ("A") REFERENCES "Beneficiario"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_BeneficiarioToConvocatoria" ADD CONSTRAINT "_BeneficiarioToConvocatoria_B_fkey" FOREIGN KEY ("B") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ActividadToConvocatoria" ADD CONSTRAINT "_ActividadToConvocatoria_A_fkey" FOREIGN KEY ("A") REFERENCES "Actividad"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "_ActividadToConvocatoria" ADD CONSTRAINT "_ActividadToConvocatoria_B_fkey" FOREIGN KEY ("B") REFERENCES "Convocatoria"("id") ON DELETE CASCADE ON UPDATE CASCADE;
