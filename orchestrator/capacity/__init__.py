"""How many workers, Redis shards and gateways a load needs: a formula and a simulation of it."""

from orchestrator.capacity.costs import Costs, read_costs
from orchestrator.capacity.load import Load
from orchestrator.capacity.outage import Lost, Outage
from orchestrator.capacity.plan import Fleet, Plan, plan
from orchestrator.capacity.simulation import Simulation
from orchestrator.capacity.summary import Outcome

__all__ = [
    "Costs",
    "Fleet",
    "Load",
    "Lost",
    "Outage",
    "Outcome",
    "Plan",
    "Simulation",
    "plan",
    "read_costs",
]
