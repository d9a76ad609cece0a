"""Sentences of reports in nine languages: a finding present, of lesser degree, and absent."""

# ruff: noqa: RUF001 - letters of other alphabets are meant

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mrknee.sources.phantom.rsna.findings import FINDINGS

Sentences = tuple[str, str, str]
"""A finding that is present, of lesser degree, absent."""


@dataclass(frozen=True)
class Phrases:
    """Sentences of one language.

    Attributes:
        title: title of a report; `{}` is the side.
        unsided: the title without a side.
        right, left: words for the side.
        technique: heading and text about the technique.
        findings, impression: headings.
        normal: impression of a report without a finding.
        index: what a measured ratio is called.
        statements: finding -> its sentences.
    """

    title: str
    unsided: str
    right: str
    left: str
    technique: str
    findings: str
    impression: str
    normal: str
    index: str
    statements: Mapping[str, Sentences]


def _statements(*sentences: Sentences) -> Mapping[str, Sentences]:
    return dict(zip(FINDINGS, sentences, strict=True))


PHRASES: Mapping[str, Phrases] = {
    "en": Phrases(
        "MRI of the {} knee",
        "MRI of the knee",
        "right",
        "left",
        "TECHNIQUE: Multiplanar multisequence imaging without contrast.",
        "FINDINGS:",
        "IMPRESSION:",
        "No significant abnormality.",
        "Insall-Salvati ratio",
        _statements(
            (
                "Complete tear of the anterior cruciate ligament.",
                "Low-grade sprain of the anterior cruciate ligament.",
                "The anterior cruciate ligament is intact.",
            ),
            (
                "High-grade tear of the medial collateral ligament.",
                "Grade 1 sprain of the medial collateral ligament.",
                "The collateral ligaments are intact.",
            ),
            (
                "Tear of the medial meniscus reaching the articular surface.",
                "Intrasubstance degeneration of the medial meniscus without tear.",
                "The medial meniscus is normal.",
            ),
            (
                "Tear of the lateral meniscus reaching the articular surface.",
                "Intrasubstance degeneration of the lateral meniscus without tear.",
                "The lateral meniscus is normal.",
            ),
            (
                "High-grade cartilage loss in the medial compartment.",
                "Mild chondral thinning in the medial compartment.",
                "Medial compartment cartilage is preserved.",
            ),
            (
                "High-grade cartilage loss in the lateral compartment.",
                "Mild chondral thinning in the lateral compartment.",
                "Lateral compartment cartilage is preserved.",
            ),
            (
                "High-grade patellofemoral cartilage loss.",
                "Mild patellofemoral chondromalacia.",
                "Patellofemoral cartilage is preserved.",
            ),
            ("Moderate joint effusion.", "Small joint effusion.", "No joint effusion."),
            (
                "Synovial thickening consistent with synovitis.",
                "Minimal synovial thickening.",
                "No synovitis.",
            ),
            ("Moderate Baker's cyst.", "Tiny Baker's cyst.", "No Baker's cyst."),
            (
                "Bone marrow contusion.",
                "Faint subchondral marrow oedema.",
                "No bone marrow oedema.",
            ),
            (
                "Acute nondisplaced fracture.",
                "Possible subchondral fracture line.",
                "No fracture.",
            ),
        ),
    ),
    "es": Phrases(
        "RM de rodilla {}",
        "RM de rodilla",
        "derecha",
        "izquierda",
        "TÉCNICA: Secuencias multiplanares sin contraste.",
        "HALLAZGOS:",
        "CONCLUSIÓN:",
        "Sin alteraciones significativas.",
        "Índice de Insall-Salvati",
        _statements(
            (
                "Rotura completa del ligamento cruzado anterior.",
                "Esguince leve del ligamento cruzado anterior.",
                "Ligamento cruzado anterior íntegro.",
            ),
            (
                "Rotura de alto grado del ligamento colateral medial.",
                "Esguince grado I del ligamento colateral medial.",
                "Ligamentos colaterales íntegros.",
            ),
            (
                "Rotura del menisco medial con extensión a la superficie articular.",
                "Degeneración intrasustancia del menisco medial sin rotura.",
                "Menisco medial sin alteraciones.",
            ),
            (
                "Rotura del menisco lateral con extensión a la superficie articular.",
                "Degeneración intrasustancia del menisco lateral sin rotura.",
                "Menisco lateral sin alteraciones.",
            ),
            (
                "Pérdida condral de alto grado en el compartimento medial.",
                "Leve adelgazamiento condral en el compartimento medial.",
                "Cartílago del compartimento medial conservado.",
            ),
            (
                "Pérdida condral de alto grado en el compartimento lateral.",
                "Leve adelgazamiento condral en el compartimento lateral.",
                "Cartílago del compartimento lateral conservado.",
            ),
            (
                "Pérdida condral femoropatelar de alto grado.",
                "Condromalacia rotuliana leve.",
                "Cartílago femoropatelar conservado.",
            ),
            ("Derrame articular moderado.", "Mínimo derrame articular.", "Sin derrame articular."),
            (
                "Engrosamiento sinovial compatible con sinovitis.",
                "Mínimo engrosamiento sinovial.",
                "Sin sinovitis.",
            ),
            (
                "Quiste de Baker de tamaño moderado.",
                "Pequeño quiste de Baker.",
                "Sin quiste de Baker.",
            ),
            ("Contusión ósea.", "Discreto edema óseo subcondral.", "Sin edema óseo."),
            (
                "Fractura aguda no desplazada.",
                "Posible línea de fractura subcondral.",
                "Sin fracturas.",
            ),
        ),
    ),
    "tr": Phrases(
        "{} diz MRG",
        "Diz MRG",
        "Sağ",
        "Sol",
        "TEKNİK: Kontrastsız, üç düzlemde görüntüler elde edilmiştir.",
        "BULGULAR:",
        "SONUÇ:",
        "Belirgin patoloji saptanmadı.",
        "Insall-Salvati oranı",
        _statements(
            (
                "Ön çapraz bağda tam kat yırtık izlenmektedir.",
                "Ön çapraz bağda hafif sprain ile uyumlu sinyal artışı.",
                "Ön çapraz bağda yırtık saptanmadı.",
            ),
            (
                "İç yan bağda yüksek dereceli yırtık.",
                "İç yan bağda grade 1 sprain.",
                "Yan bağlar doğal.",
            ),
            (
                "Medial menisküste eklem yüzeyine ulaşan yırtık.",
                "Medial menisküste dejeneratif sinyal artışı, yırtık yok.",
                "Medial menisküs doğal.",
            ),
            (
                "Lateral menisküste eklem yüzeyine ulaşan yırtık.",
                "Lateral menisküste dejeneratif sinyal artışı, yırtık yok.",
                "Lateral menisküs doğal.",
            ),
            (
                "Medial kompartmanda ileri derecede kıkırdak kaybı.",
                "Medial kompartmanda hafif kıkırdak incelmesi.",
                "Medial kompartman kıkırdağı korunmuştur.",
            ),
            (
                "Lateral kompartmanda ileri derecede kıkırdak kaybı.",
                "Lateral kompartmanda hafif kıkırdak incelmesi.",
                "Lateral kompartman kıkırdağı korunmuştur.",
            ),
            (
                "Patellofemoral eklemde ileri derecede kıkırdak kaybı.",
                "Hafif kondromalazi patella.",
                "Patellofemoral kıkırdak korunmuştur.",
            ),
            (
                "Eklem aralığında orta derecede efüzyon.",
                "Eklem aralığında minimal sıvı.",
                "Eklem efüzyonu izlenmedi.",
            ),
            (
                "Sinovit ile uyumlu sinovyal kalınlaşma.",
                "Minimal sinovyal kalınlaşma.",
                "Sinovit bulgusu yok.",
            ),
            ("Orta boyutta Baker kisti.", "Küçük Baker kisti.", "Baker kisti izlenmedi."),
            (
                "Kemik iliğinde kontüzyon ile uyumlu ödem.",
                "Silik subkondral ödem.",
                "Kemik iliği ödemi yok.",
            ),
            (
                "Akut, deplase olmayan kırık hattı.",
                "Şüpheli subkondral kırık hattı.",
                "Kırık saptanmadı.",
            ),
        ),
    ),
    "hr": Phrases(
        "MR {} koljena",
        "MR koljena",
        "desnog",
        "lijevog",
        "TEHNIKA: Multiplanarne sekvence bez kontrasta.",
        "NALAZ:",
        "ZAKLJUČAK:",
        "Uredan nalaz.",
        "Insall-Salvati indeks",
        _statements(
            (
                "Potpuna ruptura prednjeg križnog ligamenta.",
                "Blaga distenzija prednjeg križnog ligamenta.",
                "Prednji križni ligament održanog kontinuiteta.",
            ),
            (
                "Ruptura medijalnog kolateralnog ligamenta visokog stupnja.",
                "Distenzija medijalnog kolateralnog ligamenta I. stupnja.",
                "Kolateralni ligamenti održani.",
            ),
            (
                "Ruptura medijalnog meniska koja doseže zglobnu plohu.",
                "Degenerativne promjene medijalnog meniska bez rupture.",
                "Medijalni menisk uredan.",
            ),
            (
                "Ruptura lateralnog meniska koja doseže zglobnu plohu.",
                "Degenerativne promjene lateralnog meniska bez rupture.",
                "Lateralni menisk uredan.",
            ),
            (
                "Opsežan gubitak hrskavice medijalnog odjeljka.",
                "Blago stanjenje hrskavice medijalnog odjeljka.",
                "Hrskavica medijalnog odjeljka očuvana.",
            ),
            (
                "Opsežan gubitak hrskavice lateralnog odjeljka.",
                "Blago stanjenje hrskavice lateralnog odjeljka.",
                "Hrskavica lateralnog odjeljka očuvana.",
            ),
            (
                "Opsežan gubitak patelofemoralne hrskavice.",
                "Blaga hondromalacija patele.",
                "Patelofemoralna hrskavica očuvana.",
            ),
            (
                "Umjeren izljev u zglobu.",
                "Minimalan izljev u zglobu.",
                "Bez izljeva u zglobu.",
            ),
            (
                "Zadebljana sinovija u sklopu sinovitisa.",
                "Diskretno zadebljana sinovija.",
                "Bez znakova sinovitisa.",
            ),
            ("Bakerova cista umjerene veličine.", "Mala Bakerova cista.", "Bez Bakerove ciste."),
            (
                "Kontuzija koštane srži.",
                "Diskretan subhondralni edem.",
                "Bez edema koštane srži.",
            ),
            (
                "Akutni prijelom bez pomaka.",
                "Moguća subhondralna frakturna linija.",
                "Bez prijeloma.",
            ),
        ),
    ),
    "el": Phrases(
        "MRI {} γόνατος",
        "MRI γόνατος",
        "δεξιού",
        "αριστερού",
        "ΤΕΧΝΙΚΗ: Πολυεπίπεδες ακολουθίες χωρίς σκιαγραφικό.",
        "ΕΥΡΗΜΑΤΑ:",
        "ΣΥΜΠΕΡΑΣΜΑ:",
        "Χωρίς αξιόλογα παθολογικά ευρήματα.",
        "Δείκτης Insall-Salvati",
        _statements(
            (
                "Πλήρης ρήξη του προσθίου χιαστού συνδέσμου.",
                "Ήπια κάκωση του προσθίου χιαστού συνδέσμου.",
                "Ο πρόσθιος χιαστός σύνδεσμος είναι ακέραιος.",
            ),
            (
                "Ρήξη υψηλού βαθμού του έσω πλαγίου συνδέσμου.",
                "Κάκωση 1ου βαθμού του έσω πλαγίου συνδέσμου.",
                "Οι πλάγιοι σύνδεσμοι είναι ακέραιοι.",
            ),
            (
                "Ρήξη του έσω μηνίσκου με επέκταση στην αρθρική επιφάνεια.",
                "Εκφύλιση του έσω μηνίσκου χωρίς ρήξη.",
                "Φυσιολογικός έσω μηνίσκος.",
            ),
            (
                "Ρήξη του έξω μηνίσκου με επέκταση στην αρθρική επιφάνεια.",
                "Εκφύλιση του έξω μηνίσκου χωρίς ρήξη.",
                "Φυσιολογικός έξω μηνίσκος.",
            ),
            (
                "Εκτεταμένη απώλεια χόνδρου στο έσω διαμέρισμα.",
                "Ήπια λέπτυνση χόνδρου στο έσω διαμέρισμα.",
                "Ο χόνδρος του έσω διαμερίσματος διατηρείται.",
            ),
            (
                "Εκτεταμένη απώλεια χόνδρου στο έξω διαμέρισμα.",
                "Ήπια λέπτυνση χόνδρου στο έξω διαμέρισμα.",
                "Ο χόνδρος του έξω διαμερίσματος διατηρείται.",
            ),
            (
                "Εκτεταμένη απώλεια επιγονατιδομηριαίου χόνδρου.",
                "Ήπια χονδρομαλάκυνση επιγονατίδας.",
                "Ο επιγονατιδομηριαίος χόνδρος διατηρείται.",
            ),
            (
                "Μέτρια αρθρική συλλογή.",
                "Μικρή αρθρική συλλογή.",
                "Χωρίς αρθρική συλλογή.",
            ),
            (
                "Πάχυνση του υμένα συμβατή με υμενίτιδα.",
                "Ελάχιστη πάχυνση του υμένα.",
                "Χωρίς υμενίτιδα.",
            ),
            ("Κύστη Baker μετρίου μεγέθους.", "Μικρή κύστη Baker.", "Χωρίς κύστη Baker."),
            (
                "Οστική θλάση.",
                "Διακριτικό υποχόνδριο οίδημα.",
                "Χωρίς οίδημα μυελού.",
            ),
            (
                "Οξύ κάταγμα χωρίς παρεκτόπιση.",
                "Πιθανή υποχόνδρια γραμμή κατάγματος.",
                "Χωρίς κάταγμα.",
            ),
        ),
    ),
    "de": Phrases(
        "MRT {} Kniegelenk",
        "MRT Kniegelenk",
        "rechtes",
        "linkes",
        "TECHNIK: Multiplanare Sequenzen ohne Kontrastmittel.",
        "BEFUND:",
        "BEURTEILUNG:",
        "Kein relevanter pathologischer Befund.",
        "Insall-Salvati-Index",
        _statements(
            (
                "Komplette Ruptur des vorderen Kreuzbandes.",
                "Zerrung des vorderen Kreuzbandes.",
                "Vorderes Kreuzband intakt.",
            ),
            (
                "Höhergradige Ruptur des Innenbandes.",
                "Erstgradige Zerrung des Innenbandes.",
                "Kollateralbänder intakt.",
            ),
            (
                "Riss des Innenmeniskus mit Kontakt zur Gelenkfläche.",
                "Degeneration des Innenmeniskus ohne Riss.",
                "Innenmeniskus regelrecht.",
            ),
            (
                "Riss des Außenmeniskus mit Kontakt zur Gelenkfläche.",
                "Degeneration des Außenmeniskus ohne Riss.",
                "Außenmeniskus regelrecht.",
            ),
            (
                "Höhergradiger Knorpelschaden im medialen Kompartiment.",
                "Leichte Knorpelausdünnung im medialen Kompartiment.",
                "Knorpel im medialen Kompartiment erhalten.",
            ),
            (
                "Höhergradiger Knorpelschaden im lateralen Kompartiment.",
                "Leichte Knorpelausdünnung im lateralen Kompartiment.",
                "Knorpel im lateralen Kompartiment erhalten.",
            ),
            (
                "Höhergradiger retropatellarer Knorpelschaden.",
                "Leichte Chondropathia patellae.",
                "Retropatellarer Knorpel erhalten.",
            ),
            ("Mäßiger Gelenkerguss.", "Geringer Gelenkerguss.", "Kein Gelenkerguss."),
            (
                "Verdickte Synovia im Sinne einer Synovialitis.",
                "Minimal verdickte Synovia.",
                "Keine Synovialitis.",
            ),
            ("Mittelgroße Bakerzyste.", "Kleine Bakerzyste.", "Keine Bakerzyste."),
            (
                "Knochenkontusion.",
                "Diskretes subchondrales Ödem.",
                "Kein Knochenmarködem.",
            ),
            (
                "Akute nicht dislozierte Fraktur.",
                "Fragliche subchondrale Frakturlinie.",
                "Keine Fraktur.",
            ),
        ),
    ),
    "bg": Phrases(
        "МРТ на {} колянна става",
        "МРТ на колянна става",
        "дясна",
        "лява",
        "ТЕХНИКА: Мултипланарни секвенции без контраст.",
        "НАХОДКА:",
        "ЗАКЛЮЧЕНИЕ:",
        "Без съществени патологични промени.",
        "Индекс на Insall-Salvati",
        _statements(
            (
                "Пълна руптура на предната кръстна връзка.",
                "Лека дисторзия на предната кръстна връзка.",
                "Предната кръстна връзка е запазена.",
            ),
            (
                "Високостепенна руптура на медиалната колатерална връзка.",
                "Дисторзия I степен на медиалната колатерална връзка.",
                "Колатералните връзки са запазени.",
            ),
            (
                "Руптура на медиалния менискус, достигаща ставната повърхност.",
                "Дегенерация на медиалния менискус без руптура.",
                "Медиалният менискус е без промени.",
            ),
            (
                "Руптура на латералния менискус, достигаща ставната повърхност.",
                "Дегенерация на латералния менискус без руптура.",
                "Латералният менискус е без промени.",
            ),
            (
                "Тежка загуба на хрущял в медиалния компартимент.",
                "Леко изтъняване на хрущяла в медиалния компартимент.",
                "Хрущялът в медиалния компартимент е запазен.",
            ),
            (
                "Тежка загуба на хрущял в латералния компартимент.",
                "Леко изтъняване на хрущяла в латералния компартимент.",
                "Хрущялът в латералния компартимент е запазен.",
            ),
            (
                "Тежка загуба на пателофеморален хрущял.",
                "Лека хондромалация на пателата.",
                "Пателофеморалният хрущял е запазен.",
            ),
            (
                "Умерен ставен излив.",
                "Минимален ставен излив.",
                "Без ставен излив.",
            ),
            (
                "Задебелена синовия при синовит.",
                "Минимално задебелена синовия.",
                "Без синовит.",
            ),
            (
                "Киста на Бейкър с умерени размери.",
                "Малка киста на Бейкър.",
                "Без киста на Бейкър.",
            ),
            (
                "Костна контузия.",
                "Дискретен субхондрален едем.",
                "Без костномозъчен едем.",
            ),
            (
                "Остра фрактура без дислокация.",
                "Възможна субхондрална фрактурна линия.",
                "Без фрактура.",
            ),
        ),
    ),
    "nl": Phrases(
        "MRI {}",
        "MRI knie",
        "rechterknie",
        "linkerknie",
        "TECHNIEK: Multiplanaire sequenties zonder contrast.",
        "BEVINDINGEN:",
        "CONCLUSIE:",
        "Geen relevante afwijkingen.",
        "Insall-Salvati-index",
        _statements(
            (
                "Volledige ruptuur van de voorste kruisband.",
                "Lichte distorsie van de voorste kruisband.",
                "Voorste kruisband intact.",
            ),
            (
                "Hooggradige ruptuur van de mediale collaterale band.",
                "Graad 1 letsel van de mediale collaterale band.",
                "Collaterale banden intact.",
            ),
            (
                "Scheur van de mediale meniscus tot aan het gewrichtsoppervlak.",
                "Degeneratie van de mediale meniscus zonder scheur.",
                "Mediale meniscus zonder afwijkingen.",
            ),
            (
                "Scheur van de laterale meniscus tot aan het gewrichtsoppervlak.",
                "Degeneratie van de laterale meniscus zonder scheur.",
                "Laterale meniscus zonder afwijkingen.",
            ),
            (
                "Hooggradig kraakbeenverlies in het mediale compartiment.",
                "Geringe kraakbeenverdunning in het mediale compartiment.",
                "Kraakbeen in het mediale compartiment intact.",
            ),
            (
                "Hooggradig kraakbeenverlies in het laterale compartiment.",
                "Geringe kraakbeenverdunning in het laterale compartiment.",
                "Kraakbeen in het laterale compartiment intact.",
            ),
            (
                "Hooggradig patellofemoraal kraakbeenverlies.",
                "Geringe chondromalacie van de patella.",
                "Patellofemoraal kraakbeen intact.",
            ),
            ("Matige hydrops.", "Geringe hydrops.", "Geen hydrops."),
            (
                "Verdikt synovium passend bij synovitis.",
                "Minimaal verdikt synovium.",
                "Geen synovitis.",
            ),
            ("Matig grote Bakerse cyste.", "Kleine Bakerse cyste.", "Geen Bakerse cyste."),
            ("Botcontusie.", "Gering subchondraal oedeem.", "Geen beenmergoedeem."),
            (
                "Acute niet-verplaatste fractuur.",
                "Mogelijke subchondrale fractuurlijn.",
                "Geen fractuur.",
            ),
        ),
    ),
    "fr": Phrases(
        "IRM du genou {}",
        "IRM du genou",
        "droit",
        "gauche",
        "TECHNIQUE : Séquences multiplanaires sans injection.",
        "RÉSULTATS :",
        "CONCLUSION :",
        "Pas d'anomalie significative.",
        "Index d'Insall-Salvati",
        _statements(
            (
                "Rupture complète du ligament croisé antérieur.",
                "Entorse bénigne du ligament croisé antérieur.",
                "Ligament croisé antérieur intact.",
            ),
            (
                "Rupture de haut grade du ligament collatéral médial.",
                "Entorse de grade 1 du ligament collatéral médial.",
                "Ligaments collatéraux intacts.",
            ),
            (
                "Fissure du ménisque médial atteignant la surface articulaire.",
                "Dégénérescence du ménisque médial sans fissure.",
                "Ménisque médial sans particularité.",
            ),
            (
                "Fissure du ménisque latéral atteignant la surface articulaire.",
                "Dégénérescence du ménisque latéral sans fissure.",
                "Ménisque latéral sans particularité.",
            ),
            (
                "Chondropathie de haut grade du compartiment médial.",
                "Discret amincissement du cartilage médial.",
                "Cartilage du compartiment médial respecté.",
            ),
            (
                "Chondropathie de haut grade du compartiment latéral.",
                "Discret amincissement du cartilage latéral.",
                "Cartilage du compartiment latéral respecté.",
            ),
            (
                "Chondropathie fémoro-patellaire de haut grade.",
                "Chondropathie fémoro-patellaire débutante.",
                "Cartilage fémoro-patellaire respecté.",
            ),
            (
                "Épanchement articulaire modéré.",
                "Minime épanchement articulaire.",
                "Pas d'épanchement articulaire.",
            ),
            (
                "Épaississement synovial évoquant une synovite.",
                "Minime épaississement synovial.",
                "Pas de synovite.",
            ),
            (
                "Kyste poplité de taille moyenne.",
                "Petit kyste poplité.",
                "Pas de kyste poplité.",
            ),
            ("Contusion osseuse.", "Discret oedème sous-chondral.", "Pas d'oedème osseux."),
            (
                "Fracture aiguë non déplacée.",
                "Possible trait de fracture sous-chondral.",
                "Pas de fracture.",
            ),
        ),
    ),
}
