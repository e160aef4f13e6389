//! The catalogues that calls refer to, of about the size they have in the public database. Some texts end in a space there, and do here.

/// Kinds of call.
pub const KINDS: &[&str] = &[
    "Concurrencia competitiva - canónica",
    "Concesión directa - canónica",
    "Concesión directa - instrumental",
];

/// Aid instruments. Nearly every call has the first.
pub const INSTRUMENTS: &[&str] = &[
    "SUBVENCIÓN Y ENTREGA DINERARIA SIN CONTRAPRESTACIÓN ",
    "PRÉSTAMOS",
    "GARANTÍA",
    "VENTAJA FISCAL",
    "APORTACIÓN DE FINANCIACIÓN RIESGO",
    "OTROS INSTRUMENTOS DE AYUDA",
];

/// Kinds of beneficiary.
pub const BENEFICIARIES: &[&str] = &[
    "PERSONAS JURÍDICAS QUE NO DESARROLLAN ACTIVIDAD ECONÓMICA",
    "PYME Y PERSONAS FÍSICAS QUE DESARROLLAN ACTIVIDAD ECONÓMICA",
    "PERSONAS FÍSICAS QUE NO DESARROLLAN ACTIVIDAD ECONÓMICA",
    "GRAN EMPRESA",
];

/// Purposes.
pub const PURPOSES: &[&str] = &[
    "Acceso a la vivienda y fomento de la edificación",
    "Agricultura, Pesca y Alimentación",
    "Comercio, Turismo y Pymes",
    "Cooperación internacional para el desarrollo y cultural",
    "Cultura",
    "Defensa",
    "Desempleo",
    "Educación",
    "Fomento del Empleo",
    "Industria y Energía",
    "Infraestructuras",
    "Investigación, desarrollo e innovación",
    "Justicia",
    "Otras actuaciones de carácter económico",
    "Otras Prestaciones económicas",
    "Sanidad",
    "Seguridad ciudadana e Instituciones penitenciarias",
    "Servicios Sociales y Promoción Social",
    "Subvenciones al transporte",
];

/// Regions, by the code of their NUTS level.
pub const REGIONS: &[&str] = &[
    "ES - ESPAÑA ",
    "ES1 - NOROESTE",
    "ES11 - GALICIA",
    "ES111 - A Coruña",
    "ES112 - Lugo",
    "ES113 - Ourense",
    "ES114 - Pontevedra",
    "ES12 - PRINCIPADO DE ASTURIAS",
    "ES120 - Asturias",
    "ES13 - CANTABRIA",
    "ES130 - Cantabria",
    "ES2 - NORESTE",
    "ES21 - PAIS VASCO",
    "ES211 - Álava",
    "ES212 - Gipuzkoa",
    "ES213 - Bizkaia",
    "ES22 - COMUNIDAD FORAL DE NAVARRA",
    "ES220 - Navarra",
    "ES23 - LA RIOJA ",
    "ES230 - La Rioja",
    "ES24 - ARAGON",
    "ES241 - Huesca",
    "ES242 - Teruel",
    "ES243 - Zaragoza",
    "ES3 - COMUNIDAD DE MADRID",
    "ES30 - COMUNIDAD DE MADRID",
    "ES300 - Madrid",
    "ES4 - CENTRO",
    "ES41 - CASTILLA Y LEON",
    "ES411 - Ávila",
    "ES412 - Burgos",
    "ES413 - León",
    "ES414 - Palencia",
    "ES415 - Salamanca",
    "ES416 - Segovia",
    "ES417 - Soria",
    "ES418 - Valladolid",
    "ES419 - Zamora",
    "ES42 - CASTILLA-LA MANCHA",
    "ES421 - Albacete",
    "ES422 - Ciudad Real",
    "ES423 - Cuenca",
    "ES424 - Guadalajara",
    "ES425 - Toledo",
    "ES43 - EXTREMADURA",
    "ES431 - Badajoz",
    "ES432 - Cáceres",
    "ES5 - ESTE",
    "ES51 - CATALUÑA",
    "ES511 - Barcelona",
    "ES512 - Girona",
    "ES513 - Lleida",
    "ES514 - Tarragona",
    "ES52 - COMUNIDAD VALENCIANA",
    "ES521 - Alicante / Alacant",
    "ES522 - Castellón / Castelló",
    "ES523 - Valencia / València",
    "ES53 - ILLES BALEARS",
    "ES531 - Eivissa y Formentera",
    "ES532 - Mallorca",
    "ES533 - Menorca",
    "ES6 - SUR",
    "ES61 - ANDALUCÍA",
    "ES611 - Almería",
    "ES612 - Cádiz",
    "ES613 - Córdoba",
    "ES614 - Granada",
    "ES615 - Huelva",
    "ES616 - Jaén",
    "ES617 - Málaga",
    "ES618 - Sevilla",
    "ES62 - REGION DE MURCIA ",
    "ES620 - Murcia",
    "ES63 - CIUDAD AUTÓNOMA DE CEUTA",
    "ES630 - Ceuta",
    "ES64 - CIUDAD AUTÓNOMA DE MELILLA",
    "ES640 - Melilla",
    "ES7 - CANARIAS ",
    "ES70 - CANARIAS",
    "ES703 - El Hierro",
    "ES704 - Fuerteventura",
    "ES705 - Gran Canaria",
    "ES706 - La Gomera",
    "ES707 - La Palma",
    "ES708 - Lanzarote",
    "ES709 - Tenerife",
    "EU - UNION EUROPEA",
    "OM - OTROS PAISES DEL MUNDO",
];

/// Funds of the European Union.
pub const FUNDS: &[&str] = &[
    "FEDER - FONDO EUROPEO DE DESARROLLO REGIONAL",
    "FSE+ - FONDO SOCIAL EUROPEO PLUS ",
    "FEADER - FONDO EUROPEO AGRÍCOLA DE DESARROLLO RURAL",
    "FEMPA - FONDO EUROPEO MARÍTIMO, DE PESCA Y DE ACUICULTURA",
    "MRR - MECANISMO DE RECUPERACIÓN Y RESILIENCIA",
    "FAMI - FONDO DE ASILO, MIGRACIÓN E INTEGRACIÓN ",
    "FTJ - FONDO DE TRANSICIÓN JUSTA",
    "FEAGA - FONDO EUROPEO AGRÍCOLA DE GARANTÍA",
];

/// European regulations, for state aid.
pub const REGULATIONS: &[&str] = &[
    "REGLAMENTO (UE) 2023/2831, DE 13 DE DICIEMBRE, RELATIVO A LAS AYUDAS DE MINIMIS",
    "REGLAMENTO (UE) Nº 1407/2013 RELATIVO A LAS AYUDAS DE MINIMIS",
    "REGLAMENTO (UE) Nº 1408/2013 RELATIVO A LAS AYUDAS DE MINIMIS EN EL SECTOR AGRÍCOLA",
    "REGLAMENTO (UE) Nº 651/2014 DE EXENCIÓN POR CATEGORÍAS",
    "REGLAMENTO (UE) 2022/2472 DE EXENCIÓN POR CATEGORÍAS EN LOS SECTORES AGRÍCOLA Y FORESTAL",
    "REGLAMENTO (UE) 2022/2473 DE EXENCIÓN POR CATEGORÍAS EN EL SECTOR DE LA PESCA",
];

/// Objectives of state aid.
pub const OBJECTIVES: &[&str] = &[
    "Ayudas a la inversión en favor de las pymes",
    "Ayudas a la participación de las pymes en ferias",
    "Ayudas para servicios de consultoría en favor de las pymes",
    "Ayudas a proyectos de investigación y desarrollo: investigación industrial",
    "Ayudas a proyectos de investigación y desarrollo: desarrollo experimental",
    "Ayudas a proyectos de investigación y desarrollo: estudios de viabilidad",
    "Ayudas a la innovación en favor de las pymes",
    "Ayudas a la formación",
    "Ayudas para la contratación de trabajadores con discapacidad en forma de subvenciones salariales",
    "Ayudas a la inversión para medidas de eficiencia energética",
    "Ayudas para la promoción de energía procedente de fuentes renovables",
    "Ayudas a la cultura y la conservación del patrimonio ",
    "Ayudas para infraestructuras deportivas y recreativas multifuncionales",
    "Compensación por obligaciones de servicio público",
    "Ayudas destinadas a reparar los perjuicios causados por desastres naturales",
    "Ayudas a empresas emergentes",
];

/// Product sectors.
pub const PRODUCTS: &[&str] = &["AGRÍCOLA", "FORESTAL", "PESCA Y ACUICULTURA", "GANADERO"];

/// Official gazettes.
pub const GAZETTES: &[&str] = &[
    "BOLETÍN OFICIAL DEL ESTADO",
    "BOLETÍN OFICIAL DE LA JUNTA DE ANDALUCÍA",
    "BOLETÍN OFICIAL DE CANTABRIA",
    "BOLETÍN OFICIAL DE CASTILLA Y LEÓN",
    "DIARI OFICIAL DE LA GENERALITAT VALENCIANA",
    "DIARIO OFICIAL DE GALICIA",
    "DIARIO OFICIAL DE EXTREMADURA",
    "BOLETÍN OFICIAL DEL PAÍS VASCO",
];

/// Sections of the classification of activities. Since the classification was renewed `M` has two texts.
pub const SECTIONS: &[(&str, &str)] = &[
    ("A", "AGRICULTURA, GANADERÍA, SILVICULTURA Y PESCA"),
    ("B", "INDUSTRIAS EXTRACTIVAS"),
    ("C", "INDUSTRIA MANUFACTURERA"),
    ("D", "SUMINISTRO DE ENERGÍA ELÉCTRICA, GAS, VAPOR Y AIRE ACONDICIONADO"),
    ("E", "SUMINISTRO DE AGUA, ACTIVIDADES DE SANEAMIENTO, GESTIÓN DE RESIDUOS Y DESCONTAMINACIÓN"),
    ("F", "CONSTRUCCIÓN"),
    ("G", "COMERCIO AL POR MAYOR Y AL POR MENOR; REPARACIÓN DE VEHÍCULOS DE MOTOR Y MOTOCICLETAS"),
    ("H", "TRANSPORTE Y ALMACENAMIENTO"),
    ("I", "HOSTELERÍA"),
    ("J", "INFORMACIÓN Y COMUNICACIONES"),
    ("K", "ACTIVIDADES FINANCIERAS Y DE SEGUROS"),
    ("L", "ACTIVIDADES INMOBILIARIAS"),
    ("M", "ACTIVIDADES PROFESIONALES, CIENTÍFICAS Y TÉCNICAS"),
    ("M", "ACTIVIDADES INMOBILIARIAS"),
    ("N", "ACTIVIDADES ADMINISTRATIVAS Y SERVICIOS AUXILIARES"),
    ("O", "ADMINISTRACIÓN PÚBLICA Y DEFENSA; SEGURIDAD SOCIAL OBLIGATORIA"),
    ("P", "EDUCACIÓN"),
    ("Q", "ACTIVIDADES SANITARIAS Y DE SERVICIOS SOCIALES"),
    ("R", "ACTIVIDADES ARTÍSTICAS, RECREATIVAS Y DE ENTRENIMIENTO"),
    ("S", "OTROS SERVICIOS"),
    ("T", "ACTIVIDADES DE LOS HOGARES"),
    ("U", "ACTIVIDADES DE ORGANIZACIONES Y ORGANISMOS EXTRATERRITORIALES"),
];

/// How many sectors there are: the sections, then groups of three digits.
pub const SECTORS: usize = SECTIONS.len() + 354;

/// A sector, by its place in the classification.
pub fn sector(at: usize) -> (String, String) {
    match SECTIONS.get(at) {
        Some((code, text)) => ((*code).to_owned(), (*text).to_owned()),
        None => {
            let group = at - SECTIONS.len();
            let (division, place) = (1 + group / 4, 1 + group % 4);
            (
                format!("{division:02}.{place}"),
                format!("Actividades de la división {division:02}, grupo {place}"),
            )
        }
    }
}
