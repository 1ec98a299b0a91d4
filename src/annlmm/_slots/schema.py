"""Every field that annlmm writes: owner, name, slot, dtype, meaning. Docstrings, the docs and the round-trip test use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes
    ----------
    owner
        The function that writes it.
    name
        Its key, with `{key}` for `key_added`.
    slot
        `obs`, `obsm`, `uns` (inside `uns[key]`), `var` (`varm` for several phenotypes).
    dtype
        As read back.
    doc
        Meaning and unit.
    """

    owner: str
    name: str
    slot: str
    dtype: str
    doc: str


def _rows(owner: str, slot: str, *rows: tuple[str, str, str]) -> tuple[Field, ...]:
    return tuple(Field(owner, name, slot, dtype, doc) for name, dtype, doc in rows)


FIELDS: tuple[Field, ...] = (
    *_rows(
        "kernel", "obsm", ("{key}", "float64", "U (n × r): orthonormal eigenvectors of the kernel; absent for groups")
    ),
    *_rows(
        "kernel",
        "uns",
        ("kind", "str", "'dense', 'groups' or 'family'"),
        ("method", "str", "how it was made: 'grm', 'group', 'linear', 'rbf', 'graph' or 'precomputed'"),
        ("params", "dict", "the arguments"),
        ("eigenvalues", "float64", "the r non-zero eigenvalues, largest first (dense)"),
        ("centered", "bool", "whether the kernel is centred again when rows are dropped"),
        ("trace_scale", "float", "t: mean diagonal of the centred kernel, as stored"),
        ("explained", "float", "share of the trace that the kept eigenvalues carry (dense)"),
        ("n_clipped", "int", "negative eigenvalues within round-off that were set to zero (dense)"),
        ("n_obs", "int", "observations it was made of"),
        ("digest", "str", "digest of the observation names, whatever their order (dense)"),
        ("probe", "float64", "U(z + log s) for a fixed z, sorted: tells rows that are not the kernel's (dense)"),
        ("groupby", "str", "column of obs (groups)"),
        ("groups", "str array", "the groups, in the order of `relatedness` (groups)"),
        ("relatedness", "float64", "K_d, one row and column per group, absent for independent ones (groups)"),
        ("members", "str array", "keys of the kernels that a list of parameters made (family)"),
        ("parameter", "str", "what they differ in, with its values in `params` (family)"),
        ("family", "str", "key of the family that the kernel belongs to, absent for one on its own (family)"),
        ("schema_version", "int", "version of this table"),
    ),
    *_rows(
        "fit_null",
        "uns",
        ("params", "dict", "phenotype, covariates (text only), kernel, reml, gamma where given, mask"),
        (
            "beta",
            "DataFrame",
            "term, estimate, standard_error, statistic (t), df (Satterthwaite), p_value; with `phenotype` for several",
        ),
        ("beta_covariance", "float64", "covariance of the estimates (p × p); phenotypes × p × p for several"),
        ("sigma_sq", "float", "σ², variance of a unit of the kernel"),
        ("tau_sq", "float", "τ², residual variance"),
        ("gamma", "float", "γ = σ²/τ², in [0, ∞]"),
        ("log_gamma", "float", "log γ"),
        ("h_sq", "float", "h² = σ²/(σ²+τ²)"),
        ("h_sq_standard_error", "float", "from the curvature of the profile; NaN on a boundary or where γ was given"),
        (
            "h_sq_ci_low",
            "float",
            "lower end of the 95 % interval (likelihood ratio with its simulated null); NaN with `variance_test=False`, as the following",
        ),
        ("h_sq_ci_high", "float", "upper end"),
        ("h_sq_p_value", "float", "exact restricted likelihood-ratio test of σ² = 0, simulated; never 0"),
        ("h_sq_neg_log10_p_value", "float", "the same as −log₁₀, below the smallest float too"),
        ("h_sq_p_value_mixture", "float", "the ½χ²₀ + ½χ²₁ approximation, for comparison"),
        ("pve", "float", "σ²t/(σ²t+τ²), t the mean diagonal of the centred kernel on the rows used (GEMMA's)"),
        ("pve_standard_error", "float", "of pve"),
        ("log_likelihood", "float", "true log-likelihood, restricted (with ½log|XᵀX|) or full"),
        ("aic", "float", "−2 log-likelihood + 2(p + number of variance components)"),
        ("n_obs", "int", "rows used"),
        ("rank", "int", "rank of the kernel on these rows"),
        ("status", "str", "'ok', 'boundary' (h² is 0 or 1) or 'not_converged'"),
        ("phenotypes", "str array", "names of the phenotypes"),
        ("fits", "DataFrame", "several phenotypes: one row each, with the scalars above as columns"),
        ("schema_version", "int", "version of this table"),
    ),
    *_rows("fit_null", "obsm", ("{key}_design", "float64", "X (n × p), NaN in rows not used")),
    *_rows(
        "fit_null",
        "obs",
        ("{key}_phenotype", "float64", "y, NaN in rows not used (obsm for several phenotypes)"),
        ("{key}_blup", "float64", "best linear unbiased prediction of the random effect (obsm for several phenotypes)"),
        ("{key}_residual", "float64", "y − Xβ − blup"),
    ),
    *_rows(
        "associate",
        "var",
        ("{key}_beta", "float64", "effect of one unit of the feature on the phenotype"),
        ("{key}_standard_error", "float64", "of beta"),
        ("{key}_statistic", "float64", "of the test: F (wald, score) or χ² (lrt)"),
        ("{key}_df", "float64", "denominator degrees of freedom of F; NaN for χ²"),
        ("{key}_chi_sq", "float64", "likelihood ratio n log(RSS₀/RSS₁), whatever the test"),
        ("{key}_sigma_sq", "float64", "σ² with the feature in the model"),
        ("{key}_tau_sq", "float64", "τ² with the feature in the model"),
        ("{key}_p_value", "float64", "of the test"),
        ("{key}_neg_log10_p_value", "float64", "−log₁₀ p, also where p underflows"),
        ("{key}_p_adjusted", "float64", "Benjamini–Hochberg over the tested features"),
        ("{key}_h_sq", "float64", "h² with the feature in the model (variance='refit' or 'screen')"),
        ("{key}_log_likelihood", "float64", "log-likelihood with the feature, restricted for wald (the same)"),
        ("{key}_refit", "bool", "whether γ was estimated again with the feature (the same)"),
        *(
            (
                f"{{key}}_{stem}_{test}",
                "float64",
                f"{doc} of the {test} test, where it is one of several (not the first)",
            )
            for test in ("wald", "lrt", "score")
            for stem, doc in (("p_value", "p"), ("neg_log10_p_value", "−log₁₀ p"))
        ),
        (
            "{key}_status",
            "category",
            "'ok', or with a refit 'boundary' (h² is 0 or 1) and 'not_converged'; 'constant', 'collinear', 'all_missing' and "
            "'masked' have NaN",
        ),
    ),
    *_rows(
        "associate",
        "uns",
        (
            "association",
            "dict",
            "test, also (other tests), variance, threshold, df, layer, mask, missing, loco, gamma, number tested, null",
        ),
        (
            "loco_fits",
            "DataFrame",
            "with loco=: chromosome, phenotype and the scalars of its null fit, one row each (no interval and p-value of h²: NaN)",
        ),
        ("schema_version", "int", "version of this table"),
    ),
    *_rows(
        "variance_components",
        "var",
        ("{key}_sigma_sq", "float64", "σ², variance of a unit of the kernel"),
        ("{key}_tau_sq", "float64", "τ², residual variance"),
        ("{key}_h_sq", "float64", "h² = σ²/(σ²+τ²); for groups the intraclass correlation"),
        ("{key}_h_sq_standard_error", "float64", "from the curvature of the profile; NaN on a boundary"),
        ("{key}_pve", "float64", "σ²t/(σ²t+τ²), t the mean diagonal of the centred kernel on the rows used"),
        ("{key}_log_likelihood", "float64", "true log-likelihood, restricted (with ½log|XᵀX|) or full"),
        (
            "{key}_parameter",
            "float64",
            "length scale, diffusion time or ρ of the member to which the other fields belong; NaN where all have h² = 0 (family)",
        ),
        (
            "{key}_p_value",
            "float64",
            "exact likelihood-ratio test of σ² = 0, simulated, with the choice of a member accounted for; never 0",
        ),
        ("{key}_neg_log10_p_value", "float64", "−log₁₀ p, also where p underflows"),
        ("{key}_p_adjusted", "float64", "Benjamini–Hochberg over the fitted features"),
        (
            "{key}_status",
            "category",
            "'ok' or 'boundary' (h² is 0 or 1); 'not_converged' (also where the likelihood has no maximum, as for a feature "
            "that is constant within the groups), 'constant', 'collinear', 'all_missing' and 'masked' have NaN",
        ),
    ),
    *_rows(
        "variance_components",
        "varm",
        ("{key}_member_log_likelihood", "float64", "under each kernel, features × members (family)"),
        ("{key}_member_p_value", "float64", "of each kernel by itself (family)"),
    ),
    *_rows(
        "variance_components",
        "uns",
        (
            "variance_components",
            "dict",
            "covariates (text only), kernel, reml, layer, masks, missing, rng, n_obs, rank, number fitted; of a family also what its members differ in, "
            "and their values",
        ),
        ("members", "str array", "keys of the kernels, in the order of `member_p_value` (family)"),
        ("schema_version", "int", "version of this table"),
    ),
    *_rows(
        "differential",
        "var",
        (
            "{key}_beta",
            "float64",
            "effect of one unit, level or contrast (absent where several levels are tested by F)",
        ),
        ("{key}_standard_error", "float64", "of beta (the same)"),
        ("{key}_statistic", "float64", "t, or F of several levels"),
        ("{key}_df", "float64", "degrees of freedom of t, denominator degrees of freedom of F"),
        ("{key}_p_value", "float64", "two-sided, of t or F"),
        ("{key}_neg_log10_p_value", "float64", "−log₁₀ p, also where p underflows"),
        ("{key}_p_adjusted", "float64", "Benjamini–Hochberg over the tested features"),
        ("{key}_h_sq", "float64", "h² = σ²/(σ²+τ²) with the term in the model"),
        (
            "{key}_status",
            "category",
            "'ok' or 'boundary' (h² is 0 or 1); 'not_converged' (also where the likelihood has no maximum), 'constant', 'collinear' (with the "
            "design), 'all_missing' and 'masked' have NaN",
        ),
    ),
    *_rows(
        "differential",
        "varm",
        ("{key}_level_beta", "float64", "several levels: each against the reference (features × levels)"),
        ("{key}_level_standard_error", "float64", "of level_beta"),
        ("{key}_level_statistic", "float64", "t of each level"),
        ("{key}_level_df", "float64", "its degrees of freedom"),
        ("{key}_level_p_value", "float64", "two-sided, of each level"),
    ),
    *_rows(
        "differential",
        "uns",
        (
            "differential",
            "dict",
            "term, reference, contrast, covariates (text only), kernel, df, numerator_df, reml, weights, moderate with its prior on γ, layer, "
            "masks, missing, n_obs, rank, number tested",
        ),
        ("levels", "str array", "the levels of `level_beta`, where several are tested by F"),
        ("schema_version", "int", "version of this table"),
    ),
    *_rows(
        "map_eqtl",
        "uns",
        (
            "params",
            "dict",
            "donor_key, layers, mask_var, window, min_maf, covariates (text only), kernel (in words), reml, variance, threshold, df, missing, "
            "missing_call, permutations, rng, output with run (digest of the pairs in that file), n_donors, n_obs, n_pairs, pi0 (share of genes without an eQTL), conditional, fdr and threshold_gene (on p_gene); with window=None "
            "n_tests and lambda_gc; with interaction= interaction (contexts), interaction_between (those that are constant within donors), "
            "donor_slopes, and pi0_additive, pi0_interaction and pi0_joint by context in place of pi0",
        ),
        (
            "pairs",
            "DataFrame",
            "gene, variant, chrom, pos, distance (base pairs from the transcription start, positive downstream), a0, a1 (the effect "
            "allele), maf and n (donors with a call), beta (per copy of a1), standard_error, statistic (t), df, p_value, "
            "neg_log10_p_value, with window=None p_adjusted (Benjamini–Hochberg over all tests), status; in the file where `output` was given. With interaction= one row per "
            "context, context after gene, and before status interaction_beta (change of beta per unit of the context), interaction_standard_error, "
            "interaction_statistic (t), interaction_df, interaction_p_value, neg_log10_interaction_p_value, joint_statistic (F on 2 and joint_df), "
            "joint_df, joint_p_value, neg_log10_joint_p_value; status 'boundary' is a variance that is estimated as 0",
        ),
        (
            "genes",
            "DataFrame",
            "gene, n_variants, the best variant with its columns of `pairs`, p_permutation, p_beta, permutation_df, beta_shape1, beta_shape2 "
            "(with permutations), p_acat (p_bonferroni with window=None), p_adjusted (Benjamini–Hochberg) and q_value (Storey) of p_beta if "
            "it is there, of p_acat otherwise, gamma and h_sq of the null fit (absent for least squares), status (also 'unplaced' and "
            "'no_variants'). With interaction= one row per context, and for interaction and joint the best variant (interaction_variant, "
            "joint_variant) with its test, interaction_p_acat, interaction_p_adjusted, interaction_q_value and the same of joint; gamma_slope, the "
            "variance that the donors' slopes add to a cell on average, relative to τ², beside gamma",
        ),
        (
            "signals",
            "DataFrame",
            "with conditional=True: gene, rank (the order of selection), the columns of `pairs` for the variant given those before, p_gene "
            "(the gene's p-value at that step)",
        ),
        ("schema_version", "int", "version of this table"),
    ),
)


def fields_of(owner: str) -> tuple[Field, ...]:
    return tuple(field for field in FIELDS if field.owner == owner)


def documents(owner: str, *, without: str = "(none)", family: bool = False) -> Callable[[Function], Function]:
    """Put the table of an owner's fields where its docstring says `{fields}`, less those whose meaning says `without`.

    What belongs to families of kernels is left out too, unless the function makes them.
    """

    def decorate(function: Function) -> Function:
        if function.__doc__:
            fields = [f for f in fields_of(owner) if without not in f.doc and (family or "(family)" not in f.doc)]
            lines = [f"``.{f.slot}{_inside(f)}`` : {f.dtype}\n        {f.doc}." for f in fields]
            function.__doc__ = function.__doc__.replace("{fields}", "\n    ".join(lines))
        return function

    return decorate


def _inside(field: Field) -> str:
    return f"[key]['{field.name}']" if field.slot == "uns" else f"['{field.name}']"
