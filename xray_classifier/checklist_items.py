"""The items of three reporting guidelines, in words of this program, and what answers each.

Numbers follow the published lists; the sentences are not theirs. `answer` names an entry of
`checklists.ANSWERS`, `author` what only the author can say.

Source: CLAIM 2024, Tejani et al., doi:10.1148/ryai.240300; TRIPOD+AI, Collins et al. 2024,
doi:10.1136/bmj-2023-078378; STARD-AI, Sounderajah et al. 2025, doi:10.1038/s41591-025-03953-8,
which builds on STARD 2015, Bossuyt et al., doi:10.1136/bmj.h5527.
"""

from typing import NamedTuple


class Item(NamedTuple):
    """One item of a checklist.

    Attributes:
        number: As in the published list.
        asks: What has to be reported.
        author: What the author must say, or must add to the answer; `` where the answer is whole.
        answer: Which answer the run can give; `` for none.
        otherwise: What the author must do where the run could have answered and did not.
    """

    number: str
    asks: str
    author: str
    answer: str = ""
    otherwise: str = ""


class Checklist(NamedTuple):
    """One guideline.

    Attributes:
        title: Its name.
        source: Authors, year, DOI.
        note: What to know before using it.
        sections: Headings with their items, in order.
    """

    title: str
    source: str
    note: str
    sections: tuple[tuple[str, tuple[Item, ...]], ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in order."""
        return tuple(item for _, items in self.sections for item in items)


NUMBERING = (
    "The numbers follow the published list, the words are this program's own: check both against "
    "the published list before submission."
)

CLAIM = Checklist(
    "CLAIM 2024",
    "Checklist for Artificial Intelligence in Medical Imaging, 2024 update; Tejani et al. 2024, "
    "doi:10.1148/ryai.240300",
    f"44 items. {NUMBERING}",
    (
        (
            "Title and abstract",
            (
                Item("1", "Title: says that AI is used, and which kind", "the title", "technology"),
                Item(
                    "2",
                    "Abstract: design, methods, results and conclusion in order",
                    "the abstract; a result for it is given here",
                    "headline",
                ),
            ),
        ),
        (
            "Introduction",
            (
                Item(
                    "3",
                    "Background: the clinical question, and the part the model is to play",
                    "the background and the practice of today",
                    "purpose",
                ),
                Item("4", "Aims and hypotheses", "aims and hypotheses"),
            ),
        ),
        (
            "Methods: study",
            (
                Item("5", "Prospective or retrospective", "which of the two"),
                Item(
                    "6",
                    "Goal of the study: a new model, a test of one, feasibility, non-inferiority",
                    "the goal",
                ),
            ),
        ),
        (
            "Methods: data",
            (
                Item(
                    "7",
                    "Where the data come from",
                    "institutions, dates, links and licences of the data",
                    "data_source",
                ),
                Item(
                    "8",
                    "Which patients and images were taken and which were not",
                    "criteria applied before the images reached this program",
                    "eligibility",
                ),
                Item("9", "What was done to the images before training", "", "preprocessing"),
                Item(
                    "10",
                    "Whether parts of the images or of the data were selected, and by whom",
                    "selection of regions or films before this program",
                    "subsets",
                ),
                Item(
                    "11",
                    "How patients were made unrecognisable",
                    "how names and burned-in text were removed at the source",
                    "deidentification",
                ),
                Item(
                    "12",
                    "What was done about missing data",
                    "missing labels or clinical data",
                    "missing",
                ),
                Item(
                    "13",
                    "How the images were acquired",
                    "manufacturers, detectors and exposure protocols",
                    "acquisition",
                ),
            ),
        ),
        (
            "Methods: reference standard",
            (
                Item(
                    "14",
                    "How it was decided who is sick",
                    "a definition that others can repeat",
                    "reference_standard",
                ),
                Item("15", "Why this reference standard", "reasons and alternatives"),
                Item("16", "Who annotated, and with what training", "number and expertise"),
                Item("17", "How the test images were annotated", "procedure and tools"),
                Item(
                    "18",
                    "Agreement within and between annotators, and how differences were settled",
                    "agreement",
                ),
            ),
        ),
        (
            "Methods: splits and sample size",
            (
                Item("19", "How images were assigned to splits", "", "partition"),
                Item("20", "At which level splits are disjoint", "", "level"),
                Item(
                    "21",
                    "Intended size of the test set",
                    "how the size was chosen beforehand",
                    "tested",
                ),
            ),
        ),
        (
            "Methods: model and training",
            (
                Item("22", "The model in full: input, layers, output", "", "architecture"),
                Item("23", "Software with versions", "", "software"),
                Item("24", "How the weights began", "", "initialisation"),
                Item("25", "How it was trained", "", "training"),
                Item("26", "How the final model was picked", "", "selection"),
                Item("27", "Whether and how models are joined", "", "ensembling"),
            ),
        ),
        (
            "Methods: evaluation",
            (
                Item("28", "Measures of performance", "why these", "metric_names"),
                Item("29", "Measures of uncertainty, and tests", "", "uncertainty"),
                Item(
                    "30",
                    "Robustness or sensitivity analysis",
                    "",
                    "robustness",
                    otherwise="not computed: run `evaluate --stress`, or say that none was made",
                ),
                Item(
                    "31",
                    "Explanation methods, and whether they were validated",
                    "whether the maps were checked against what a reader sees",
                    "explanations",
                ),
                Item(
                    "32",
                    "Test on internal data",
                    "",
                    "internal",
                    otherwise="the evaluation at hand is not of the run's own images",
                ),
                Item(
                    "33",
                    "Test on external data",
                    "",
                    "external",
                    otherwise="none at hand: run `evaluate --data`, or say why there is none",
                ),
                Item("34", "Registration of a clinical trial", "register and number, if any"),
            ),
        ),
        (
            "Results",
            (
                Item(
                    "35",
                    "Numbers taken in and left out, with a diagram",
                    "what happened before the images reached the folder",
                    "flow",
                ),
                Item(
                    "36",
                    "Characteristics of each split",
                    "age, sex and clinical state, where the data lack them",
                    "characteristics",
                ),
                Item("37", "Performance with its uncertainty", "", "estimates"),
                Item("38", "Diagnostic accuracy with its precision", "", "accuracy"),
                Item(
                    "39",
                    "What the wrong answers have in common",
                    "a look at these images by a reader",
                    "failures",
                ),
            ),
        ),
        (
            "Discussion",
            (
                Item(
                    "40",
                    "Limits of the study",
                    "biases and how far the result carries",
                    "limitations",
                ),
                Item(
                    "41",
                    "What it means for practice",
                    "consequences and hindrances",
                    "purpose",
                ),
            ),
        ),
        (
            "Other",
            (
                Item("42", "Where the full protocol is", "the place of the protocol", "plan"),
                Item(
                    "43",
                    "Where software, model and data can be had",
                    "links and conditions for model and data",
                    "availability",
                ),
                Item("44", "Who paid, and what part they had", "funding"),
            ),
        ),
    ),
)

TRIPOD = Checklist(
    "TRIPOD+AI",
    "Transparent Reporting of a multivariable prediction model for Individual Prognosis Or "
    "Diagnosis, 2024; Collins et al. 2024, doi:10.1136/bmj-2023-078378",
    f"27 items in 52 parts. {NUMBERING}",
    (
        (
            "Title and abstract",
            (
                Item(
                    "1",
                    "Title: development or evaluation of a prediction model, for whom, of what",
                    "the title",
                    "technology",
                ),
                Item(
                    "2",
                    "Abstract, by the list for abstracts of TRIPOD+AI",
                    "the abstract; a result for it is given here",
                    "headline",
                ),
            ),
        ),
        (
            "Introduction",
            (
                Item(
                    "3a",
                    "Healthcare context, diagnosis or prognosis, and why a model",
                    "context, and the models there are",
                    "purpose",
                ),
                Item(
                    "3b",
                    "For which patients, where in care, and who uses it",
                    "the place in the course of care",
                    "population_and_users",
                ),
                Item("3c", "Known health inequalities between groups", "what is known of them"),
                Item("4", "Objectives: development, evaluation or both", "objectives"),
            ),
        ),
        (
            "Methods",
            (
                Item(
                    "5a",
                    "Sources of the data for development and for evaluation, and why these",
                    "why these data, and whom they represent",
                    "data_source",
                ),
                Item("5b", "Dates of the data", "first and last date"),
                Item("6a", "Setting, number and place of the centres", "centres", "setting"),
                Item(
                    "6b",
                    "Who was eligible",
                    "criteria applied before the images reached this program",
                    "eligibility",
                ),
                Item("6c", "Treatments received", "treatments, or that they do not matter here"),
                Item(
                    "7",
                    "Preparation and quality checks of the data, and whether alike in all groups",
                    "whether films of all groups were prepared alike at the source",
                    "preprocessing",
                ),
                Item(
                    "8a",
                    "The outcome: definition, time, how and when assessed, why this one",
                    "time and reasons; whether assessed alike in all groups",
                    "reference_standard",
                ),
                Item("8b", "Who judged the outcome, if that takes judgement", "the assessors"),
                Item("8c", "Blinding of the assessment of the outcome", "what the assessors knew"),
                Item(
                    "9a",
                    "Choice of the predictors at the start",
                    "",
                    "predictors",
                ),
                Item(
                    "9b",
                    "The predictors: definition, how and when measured, blinding",
                    "when the films were taken",
                    "blinding",
                ),
                Item(
                    "9c",
                    "Who judged the predictors, if that takes judgement",
                    "",
                    "no_reader",
                ),
                Item(
                    "10",
                    "Size of the study, for development and evaluation, and why it is enough",
                    "how the size was chosen beforehand",
                    "sizes",
                ),
                Item("11", "Missing data", "missing labels or clinical data", "missing"),
                Item("12a", "How the data were used, and split", "", "partition"),
                Item("12b", "How predictors entered: scaling, transformation", "", "preprocessing"),
                Item(
                    "12c",
                    "Type of model, steps of building, tuning, internal validation",
                    "hyperparameters tried in other runs, if any",
                    "building",
                ),
                Item(
                    "12d",
                    "Differences between clusters such as hospitals",
                    "whether one of these groups is a hospital or a country",
                    "subgroups",
                    otherwise="not computed by cluster: run `evaluate` with subgroups, or say so",
                ),
                Item("12e", "Measures and plots of performance", "why these", "metric_names"),
                Item("12f", "Updating of the model in the evaluation", "", "no_updating"),
                Item("12g", "How predictions were computed in the evaluation", "", "formula"),
                Item("13", "Class imbalance, and recalibration after it", "", "imbalance"),
                Item(
                    "14",
                    "Fairness: what was done, and why",
                    "why these groups, and what was done for fairness",
                    "subgroups",
                    otherwise="not computed: run `evaluate` with subgroups, or say so",
                ),
                Item("15", "Output of the model, and how thresholds were found", "", "output"),
                Item(
                    "16",
                    "Differences between development and evaluation data",
                    "differences in setting, criteria and outcome",
                    "prevalences",
                ),
                Item("17", "Ethical approval and consent", "committee, number, consent"),
            ),
        ),
        (
            "Open science",
            (
                Item("18a", "Funding", "funding and the part of the funders"),
                Item("18b", "Conflicts of interest", "conflicts of all authors"),
                Item("18c", "Protocol", "where it is, or that there is none", "plan"),
                Item("18d", "Registration", "register and number, or none"),
                Item("18e", "Sharing of data", "where and on which conditions"),
                Item(
                    "18f",
                    "Sharing of code",
                    "where your own code and the checkpoint can be had",
                    "availability",
                ),
            ),
        ),
        (
            "Patients and public",
            (Item("19", "Involvement of patients and public", "what there was, or none"),),
        ),
        (
            "Results",
            (
                Item("20a", "Flow of participants", "what happened before the folder", "flow"),
                Item(
                    "20b",
                    "Characteristics overall and by source",
                    "dates, treatments, and covariates that the data lack",
                    "characteristics",
                ),
                Item(
                    "20c",
                    "Evaluation data beside development data",
                    "covariates that the data lack",
                    "prevalences",
                ),
                Item("21", "Participants and outcomes in each analysis", "", "sizes"),
                Item(
                    "22",
                    "The model in full, so that others can use it",
                    "where the checkpoint can be had",
                    "formula",
                ),
                Item("23a", "Performance with intervals", "key subgroups, if none", "estimates"),
                Item(
                    "23b",
                    "Performance by cluster",
                    "whether one of these groups is a hospital or a country",
                    "subgroups",
                    otherwise="not computed by cluster: run `evaluate` with subgroups, or say so",
                ),
                Item("24", "Results of updating", "", "no_updating"),
            ),
        ),
        (
            "Discussion",
            (
                Item("25", "Interpretation, fairness included", "interpretation"),
                Item(
                    "26",
                    "Limits and their effects",
                    "biases and how far the result carries",
                    "limitations",
                ),
                Item("27a", "Poor or missing input in use", "", "unusable_input"),
                Item(
                    "27b",
                    "What users must do and know",
                    "the expertise that use takes",
                    "users",
                ),
                Item("27c", "Next steps of research", "next steps"),
            ),
        ),
    ),
)

STARD = Checklist(
    "STARD-AI",
    "Standards for Reporting of Diagnostic Accuracy Studies, AI, 2025; Sounderajah et al. 2025, "
    "doi:10.1038/s41591-025-03953-8; builds on STARD 2015, doi:10.1136/bmj.h5527",
    f"40 items in 48 parts. {NUMBERING}",
    (
        (
            "Title and abstract",
            (
                Item(
                    "1",
                    "Title or abstract: accuracy of an AI test, with one measure of it",
                    "the title",
                    "technology_and_headline",
                ),
                Item("2", "Abstract, by STARD for abstracts", "the abstract", "estimates"),
            ),
        ),
        (
            "Introduction",
            (
                Item(
                    "3",
                    "Background, intended use, new or established test, place in the workflow",
                    "background, and whether the test is new",
                    "purpose",
                ),
                Item("4", "Objectives and hypotheses", "objectives and hypotheses"),
            ),
        ),
        (
            "Methods: design and ethics",
            (
                Item("5", "Data planned before or after the tests", "prospective or retrospective"),
                Item("6", "Ethics approval, or why none", "committee and number"),
            ),
        ),
        (
            "Methods: participants",
            (
                Item(
                    "7",
                    "Criteria for participants and for data, in their order",
                    "criteria applied before the images reached this program",
                    "eligibility",
                ),
                Item("8", "How candidates were found", "symptoms, referral or register"),
                Item("9", "Where and when", "places and dates", "setting"),
                Item("10", "Consecutive, random or convenience series", "which of the three"),
            ),
        ),
        (
            "Methods: data set",
            (
                Item(
                    "11",
                    "Source of the data: routine, collected for this, or public",
                    "which of the three",
                    "data_source",
                ),
                Item("12", "Who annotated, and how", "annotators and circumstances"),
                Item(
                    "13",
                    "Devices that took the images; software of the test, with versions",
                    "manufacturer and model of the devices",
                    "software",
                ),
                Item(
                    "14",
                    "Acquisition and preparation of the images",
                    "exposure protocols",
                    "acquisition_and_preprocessing",
                ),
            ),
        ),
        (
            "Methods: tests",
            (
                Item("15a", "The index test, to be repeated", "", "formula"),
                Item("15b", "How it was developed, with sample sizes", "", "building"),
                Item("15c", "Its cut-offs, planned or exploratory", "", "cutoff"),
                Item("15d", "Who is to use it, with what expertise", "expertise", "users"),
                Item(
                    "16a",
                    "The reference standard, to be repeated",
                    "a definition that others can repeat",
                    "reference_standard",
                ),
                Item("16b", "Why this reference standard", "reasons and alternatives"),
                Item("16c", "Its cut-offs, planned or exploratory", "cut-offs, if any"),
                Item("17a", "What readers of the index test knew", "", "blinding"),
                Item(
                    "17b",
                    "What assessors of the reference standard knew",
                    "whether they saw clinical data or answers of the model",
                ),
            ),
        ),
        (
            "Methods: analysis",
            (
                Item("18", "How accuracy is estimated and compared", "", "uncertainty"),
                Item(
                    "19",
                    "Undecided results",
                    "undecided results of the reference standard",
                    "undecided",
                ),
                Item(
                    "20",
                    "Missing data",
                    "missing results of the reference standard",
                    "missing",
                ),
                Item(
                    "21",
                    "Analyses of variability, planned or exploratory",
                    "",
                    "variability",
                    otherwise="not computed: run `evaluate` with subgroups or --stress, or say so",
                ),
                Item(
                    "22",
                    "Intended sample size, and how it was found",
                    "how the size was chosen beforehand",
                    "tested",
                ),
                Item(
                    "23",
                    "Analysis of errors, bias and fairness",
                    "what the wrong answers and the differences between groups mean",
                    "subgroups",
                    otherwise="not computed: run `evaluate` with subgroups, or say so",
                ),
            ),
        ),
        (
            "Results: participants and data set",
            (
                Item(
                    "24",
                    "Flow of participants, as a diagram",
                    "what happened before the images reached the folder",
                    "flow",
                ),
                Item(
                    "25",
                    "Characteristics of training, validation and test sets",
                    "covariates that the data lack",
                    "characteristics",
                ),
                Item("26a", "Severity among the sick", "severity"),
                Item("26b", "Other diagnoses among the healthy", "other diagnoses"),
                Item("27", "Time and treatment between the two tests", "time and treatment"),
                Item(
                    "28",
                    "Whether the share of the sick is that of the intended population",
                    "the share in the intended population",
                    "prevalences",
                ),
                Item(
                    "29",
                    "How external data differ from the others",
                    "how patients, setting and devices differ",
                    "external",
                    otherwise="none at hand: run `evaluate --data`, or say why there is none",
                ),
            ),
        ),
        (
            "Results: tests",
            (
                Item("30", "Answers of the test against the reference", "", "cross_table"),
                Item("31", "Accuracy with its precision", "", "estimates"),
                Item("32", "Harm done by either test", "adverse events, or none"),
            ),
        ),
        (
            "Discussion",
            (
                Item(
                    "33",
                    "Limits: bias, uncertainty, how far it carries",
                    "biases and how far the result carries",
                    "limitations",
                ),
                Item("34", "What it means for practice", "consequences", "purpose"),
                Item("35", "Ethics and fairness of use", "ethics and fairness"),
            ),
        ),
        (
            "Other",
            (
                Item("36", "Registration", "register and number"),
                Item("37", "Where the full protocol is", "the place of the protocol", "plan"),
                Item("38", "Funding", "funding and the part of the funders"),
                Item("39", "Commercial interests", "interests, or none"),
                Item(
                    "40a",
                    "Where data and code can be had",
                    "links and conditions for model and data",
                    "availability",
                ),
                Item("40b", "Whether outputs are kept and can be audited", "", "storage"),
            ),
        ),
    ),
)

CHECKLISTS = {"claim": CLAIM, "tripod": TRIPOD, "stard": STARD}
