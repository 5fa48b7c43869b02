"""The works behind the methods, and which of them a report has to name."""

from __future__ import annotations

from collections.abc import Iterable

REFERENCES: dict[str, str] = {
    "tan": "Tan, D., Chanin, D., Lynch, A., Kanoulas, D., Paige, B., Garriga-Alonso, A., Kirk, R. (2024). "
    "Analyzing the Generalization and Reliability of Steering Vectors. NeurIPS 2024. arXiv:2407.12404",
    "rimsky": "Rimsky, N., Gabrieli, N., Schulz, J., Tong, M., Hubinger, E., Turner, A. (2024). Steering Llama 2 via "
    "Contrastive Activation Addition. ACL 2024. arXiv:2312.06681",
    "perez": "Perez, E., et al. (2023). Discovering Language Model Behaviors with Model-Written Evaluations. "
    "Findings of ACL 2023. arXiv:2212.09251",
    "wilson": "Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal of "
    "the American Statistical Association 22, 209–212. doi:10.1080/01621459.1927.10502953",
    "woodruff": "Woodruff, R. S. (1952). Confidence intervals for medians and other position measures. Journal of the "
    "American Statistical Association 47, 635–646. doi:10.1080/01621459.1952.10483443",
    "miller": "Miller, R. G. (1968). Jackknifing variances. Annals of Mathematical Statistics 39, 567–582. "
    "doi:10.1214/aoms/1177698418",
    "hotelling": "Hotelling, H. (1931). The generalization of Student's ratio. Annals of Mathematical Statistics 2, "
    "360–378. doi:10.1214/aoms/1177732979",
    "groemping": "Grömping, U. (2007). Estimators of relative importance in linear regression based on variance "
    "decomposition. The American Statistician 61, 139–147. doi:10.1198/000313007X188252",
    "bell": "Bell, R. M., McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with "
    "multi-stage samples. Survey Methodology 28, 169–181",
    "hartung": "Hartung, J., Knapp, G. (2001). On tests of the overall treatment effect in meta-analysis with normally "
    "distributed responses. Statistics in Medicine 20, 1771–1782. doi:10.1002/sim.791",
    "bonett": "Bonett, D. G., Wright, T. A. (2000). Sample size requirements for estimating Pearson, Kendall and "
    "Spearman correlations. Psychometrika 65, 23–28. doi:10.1007/BF02294183",
    "efron": "Efron, B., Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall",
    "romano": "Romano, J. P., Wolf, M. (2005). Stepwise multiple testing as formalized data snooping. Econometrica 73, "
    "1237–1282. doi:10.1111/j.1468-0262.2005.00615.x",
    "satterthwaite": "Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. "
    "Biometrics Bulletin 2, 110–114. doi:10.2307/3002019",
    "bh": "Benjamini, Y., Hochberg, Y. (1995). Controlling the false discovery rate. Journal of the Royal Statistical "
    "Society B 57, 289–300. doi:10.1111/j.2517-6161.1995.tb02031.x",
    "braun": "Braun, J., et al. (2025). Understanding (un)reliability of steering vectors in language models. "
    "arXiv:2505.22637",
    "bas": "Bas, Novak (2025). What Can We Actually Steer? A Multi-Behavior Study of Activation Control. "
    "arXiv:2511.18284 (first posted as: Steering Latent Traits, Not Learned Facts)",
}

USED_BY: dict[str, tuple[str, ...]] = {
    "per_input_steerability": ("wilson", "woodruff", "miller"),
    "linearity": ("hotelling",),
    "positive_option": ("bell", "hartung"),
    "spurious_effects": ("bell", "hartung", "bh"),
    "own_factors": ("bell", "hartung", "groemping"),
    "variance_explained": ("groemping", "efron"),
    "debiased_vectors": ("efron",),
    "id_vs_ood": ("bonett", "efron"),
    "gap_parts": ("efron", "romano", "hartung", "satterthwaite"),
    "propensity_difference": ("efron",),
    "variance_id_ood": ("miller", "bonett"),
    "cross_model": ("bonett", "efron"),
    "comparison": ("efron", "romano", "hartung"),
    "split_leakage": ("hartung",),
    "null_vectors": ("bh",),
    "vector_sampling_error": ("satterthwaite",),
    "predictors": ("braun", "bas", "efron"),
}


def references_for(scripts: Iterable[str]) -> list[str]:
    """The references of the scripts that ran, in the order in which they are cited; the paper and the data first."""
    cited = ["tan", "rimsky", "perez", *(key for script in scripts for key in USED_BY.get(script, ()))]
    return [REFERENCES[key] for key in dict.fromkeys(cited)]


def citations(scripts: Iterable[str]) -> dict[str, str]:
    """What to write behind the methods of each script: " [4, 9]", by the places in `references_for(scripts)`."""
    scripts = list(scripts)
    place = {text: k + 1 for k, text in enumerate(references_for(scripts))}
    found = {}
    for script in scripts:
        numbers = sorted(place[REFERENCES[key]] for key in USED_BY.get(script, ()))
        if numbers:
            found[script] = f" [{_in_short(numbers)}]"
    return found


def _in_short(numbers: list[int]) -> str:
    """ "4–6, 9" for 4, 5, 6, 9; two in a row stay apart."""
    runs: list[list[int]] = []
    for one in numbers:
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
