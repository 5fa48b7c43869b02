"""The works behind the methods: how a text cites one, and the list of those it cited."""

from __future__ import annotations

import re

REFERENCES: dict[str, str] = {
    "bas": "Bas, T., Novak, K. (2025). What can we actually steer? A multi-behavior study of activation "
    "control. arXiv:2511.18284 (first posted as: Steering latent traits, not learned facts)",
    "bell": "Bell, R. M., McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression "
    "with multi-stage samples. Survey Methodology 28, 169–181",
    "heller": "Benjamini, Y., Heller, R. (2008). Screening for partial conjunction hypotheses. Biometrics 64, "
    "1215–1222. doi:10.1111/j.1541-0420.2007.00984.x",
    "bh": "Benjamini, Y., Hochberg, Y. (1995). Controlling the false discovery rate. Journal of the Royal "
    "Statistical Society B 57, 289–300. doi:10.1111/j.2517-6161.1995.tb02031.x",
    "bonett": "Bonett, D. G., Wright, T. A. (2000). Sample size requirements for estimating Pearson, Kendall "
    "and Spearman correlations. Psychometrika 65, 23–28. doi:10.1007/BF02294183",
    "braun": "Braun, J., Eickhoff, C., Krueger, D., Bahrainian, S. A., Krasheninnikov, D. (2025). "
    "Understanding (un)reliability of steering vectors in language models. arXiv:2505.22637",
    "efron": "Efron, B., Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall. "
    "doi:10.1201/9780429246593",
    "groemping": "Grömping, U. (2007). Estimators of relative importance in linear regression based on variance "
    "decomposition. The American Statistician 61, 139–147. doi:10.1198/000313007X188252",
    "gupta": "Gupta, S. S. (1965). On some multiple decision (selection and ranking) rules. Technometrics 7, "
    "225–245. doi:10.1080/00401706.1965.10490251",
    "hartung": "Hartung, J., Knapp, G. (2001). On tests of the overall treatment effect in meta-analysis with "
    "normally distributed responses. Statistics in Medicine 20, 1771–1782. doi:10.1002/sim.791",
    "hotelling": "Hotelling, H. (1931). The generalization of Student's ratio. Annals of Mathematical Statistics "
    "2, 360–378. doi:10.1214/aoms/1177732979",
    "ibragimov": "Ibragimov, R., Müller, U. K. (2010). t-statistic based correlation and heterogeneity robust "
    "inference. Journal of Business & Economic Statistics 28, 453–468. doi:10.1198/jbes.2009.08046",
    "kendall": "Kendall, M. G. (1938). A new measure of rank correlation. Biometrika 30, 81–93. "
    "doi:10.1093/biomet/30.1-2.81",
    "laird": "Laird, N. M., Ware, J. H. (1982). Random-effects models for longitudinal data. Biometrics 38, "
    "963–974. doi:10.2307/2529876",
    "lin": "Lin, S., Hilton, J., Evans, O. (2022). TruthfulQA: measuring how models mimic human falsehoods. "
    "ACL 2022. arXiv:2109.07958",
    "lindeman": "Lindeman, R. H., Merenda, P. F., Gold, R. Z. (1980). Introduction to Bivariate and Multivariate "
    "Analysis. Scott, Foresman",
    "mackinnon": "MacKinnon, J. G., White, H. (1985). Some heteroskedasticity-consistent covariance matrix "
    "estimators with improved finite sample properties. Journal of Econometrics 29, 305–325. "
    "doi:10.1016/0304-4076(85)90158-7",
    "miller": "Miller, R. G. (1968). Jackknifing variances. Annals of Mathematical Statistics 39, 567–582. "
    "doi:10.1214/aoms/1177698418",
    "nagashima": "Nagashima, K., Noma, H., Furukawa, T. A. (2019). Prediction intervals for random-effects "
    "meta-analysis: a confidence distribution approach. Statistical Methods in Medical Research 28, "
    "1689–1702. doi:10.1177/0962280218773520",
    "patterson": "Patterson, H. D., Thompson, R. (1971). Recovery of inter-block information when block sizes are "
    "unequal. Biometrika 58, 545–554. doi:10.1093/biomet/58.3.545",
    "perez": "Perez, E., et al. (2023). Discovering Language Model Behaviors with Model-Written Evaluations. "
    "Findings of ACL 2023. arXiv:2212.09251",
    "phipson": "Phipson, B., Smyth, G. K. (2010). Permutation p-values should never be zero: calculating exact "
    "p-values when permutations are randomly drawn. Statistical Applications in Genetics and "
    "Molecular Biology 9, 39. doi:10.2202/1544-6115.1585",
    "pustejovsky": "Pustejovsky, J. E., Tipton, E. (2018). Small-sample methods for cluster-robust variance "
    "estimation and hypothesis testing in fixed effects models. Journal of Business & Economic "
    "Statistics 36, 672–683. doi:10.1080/07350015.2016.1247004",
    "rimsky": "Rimsky, N., Gabrieli, N., Schulz, J., Tong, M., Hubinger, E., Turner, A. (2024). Steering Llama "
    "2 via Contrastive Activation Addition. ACL 2024. arXiv:2312.06681",
    "romano": "Romano, J. P., Wolf, M. (2005). Exact and approximate stepdown methods for multiple hypothesis "
    "testing. Journal of the American Statistical Association 100, 94–108. "
    "doi:10.1198/016214504000000539",
    "roever": "Röver, C., Knapp, G., Friede, T. (2015). Hartung-Knapp-Sidik-Jonkman approach and its "
    "modification for random-effects meta-analysis with few studies. BMC Medical Research "
    "Methodology 15, 99. doi:10.1186/s12874-015-0091-1",
    "satterthwaite": "Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. "
    "Biometrics Bulletin 2, 110–114. doi:10.2307/3002019",
    "spearman": "Spearman, C. (1904). The proof and measurement of association between two things. American "
    "Journal of Psychology 15, 72–101. doi:10.2307/1412159",
    "tan": "Tan, D., Chanin, D., Lynch, A., Kanoulas, D., Paige, B., Garriga-Alonso, A., Kirk, R. (2024). "
    "Analyzing the Generalization and Reliability of Steering Vectors. NeurIPS 2024. arXiv:2407.12404",
    "viechtbauer05": "Viechtbauer, W. (2005). Bias and efficiency of meta-analytic variance estimators in the "
    "random-effects model. Journal of Educational and Behavioral Statistics 30, 261–293. "
    "doi:10.3102/10769986030003261",
    "viechtbauer07": "Viechtbauer, W. (2007). Confidence intervals for the amount of heterogeneity in meta-analysis. "
    "Statistics in Medicine 26, 37–52. doi:10.1002/sim.2514",
    "westfall": "Westfall, P. H., Young, S. S. (1993). Resampling-Based Multiple Testing: Examples and Methods "
    "for p-Value Adjustment. Wiley",
    "wilson": "Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. "
    "Journal of the American Statistical Association 22, 209–212. doi:10.1080/01621459.1927.10502953",
    "woodruff": "Woodruff, R. S. (1952). Confidence intervals for medians and other position measures. Journal "
    "of the American Statistical Association 47, 635–646. doi:10.1080/01621459.1952.10483443",
}
"""Authors (year). Title. Where, in the order of the alphabet."""

_FORM = re.compile(r"(?P<authors>.+?) \((?P<year>\d{4})\)\. ")
_INITIALS = re.compile(r",? (?:[A-Z]\.[ -]?)+")


class Cited:
    """Citations of one text: called with keys it gives what follows the words in the text, each work once.

    Examples
    --------
    >>> cite = Cited()
    >>> cite("romano", "tan"), cite("bas", "tan"), cite("tan"), cite.by_name("wilson")
    (' (Romano & Wolf, 2005; Tan et al., 2024)', ' (Bas & Novak, 2025)', '', 'Wilson (1927)')
    >>> [one.split(",")[0] for one in cite.references()]
    ['Bas', 'Romano', 'Tan', 'Wilson']
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def __call__(self, *keys: str) -> str:
        """ " (A, 1990; B & C, 2001)", with its space, of those that the text has not cited yet; "" if it has all."""
        new = [short(key) for key in keys if key not in self.keys]
        self.keys.update(keys)
        return f" ({'; '.join(new)})" if new else ""

    def by_name(self, key: str) -> str:
        """ "A (1990)", for a sentence that names its author."""
        self.keys.add(key)
        return " (".join(short(key).rsplit(", ", 1)) + ")"

    def references(self) -> list[str]:
        """The works cited so far, each once, by the alphabet."""
        return [text for key, text in REFERENCES.items() if key in self.keys]


def short(key: str) -> str:
    """A work as a sentence names it.

    Examples
    --------
    >>> short("wilson"), short("bh"), short("tan")
    ('Wilson, 1927', 'Benjamini & Hochberg, 1995', 'Tan et al., 2024')
    """
    found = _FORM.match(REFERENCES[key])
    names = [name for name in _INITIALS.sub("", found["authors"]).split(", ") if name]
    who = " & ".join(names) if len(names) < 3 and names[-1] != "et al." else f"{names[0]} et al."
    return f"{who}, {found['year']}"
