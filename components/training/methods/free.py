"""The method called Free (Shafahi et al., arXiv 1904.12843): one gradient serves twice."""

from components.attacks.pgd import start_seeds
from components.batch import Batch
from components.training.methods.base import InnerProblem, Method, minimise_adversarial


def craft(problem: InnerProblem) -> Batch:
    """Move the last replay's examples along the gradient its backward left in them.

    One backward pass serves the weights and the inputs. The first replay starts at a random point,
    where the paper carries the perturbation over from the batch before: so a run can resume
    anywhere.
    """
    region = problem.threat.region(problem.clean)
    if problem.previous is None:
        adversarial = region.random_start(start_seeds(region, problem.seed, "train"))
    else:
        leaves = {m: getattr(problem.previous, m) for m in region.names}
        adversarial = {m: leaf.detach() for m, leaf in leaves.items()}
        relative = problem.train.attack.rel_alpha or 1.0
        lengths = {m: relative * b.eps for m, b in problem.threat.budgets.items()}
        region.step_(adversarial, {m: leaf.grad for m, leaf in leaves.items()}, lengths)
    leaf = {m: x.detach().requires_grad_(True) for m, x in adversarial.items()}
    return problem.clean._replace(**leaf)  # type: ignore[arg-type]


METHOD = Method(craft, minimise_adversarial, replays=True)
