"""A regression of actual on declared durations of services, from which the estimate takes the time of a service."""

from math import exp, log, sqrt

from msgspec import Struct

SERVICE_MEMORY = 0.97
"""The factor by which each service reduces the weight of earlier services."""
LEVEL_PRIOR = 3.0
"""The weight of the declared duration, in observations."""
SLOPE_PRIOR = 2.0
"""The weight of the assumption that actual durations are proportional to declared ones, as a sum of squares of
log(declared)."""
SLOPE_RANGE = (-1.0, 0.5)
"""-1: declarations say nothing about their own item. 0: actual durations are proportional to them."""
SPREAD_LIMIT = 1.5
"""The largest spread of log(actual): a few absurd services must not make the mean many times the median."""


class Fit(Struct, frozen=True, kw_only=True):
    """A shrunk regression of y = log(actual / declared) on x = log(declared), over the services of one kind of item.

    The slope keeps the information of a declaration about its own item. The sums fade, so that about the last thirty
    services count: an update takes constant time, and a history stays small.
    """

    weight: float = 0.0
    """The number of services, faded like the sums."""
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def with_service(self, declared: float, actual: float) -> "Fit":
        """This fit with one more service; both durations in seconds."""
        x, y = log(declared), log(actual / declared)
        return Fit(
            weight=self.weight * SERVICE_MEMORY + 1,
            x=self.x * SERVICE_MEMORY + x,
            y=self.y * SERVICE_MEMORY + y,
            xx=self.xx * SERVICE_MEMORY + x * x,
            xy=self.xy * SERVICE_MEMORY + x * y,
            yy=self.yy * SERVICE_MEMORY + y * y,
        )

    @property
    def slope(self) -> float:
        """The slope of the regression, shrunk towards 0 and limited to SLOPE_RANGE."""
        covariance = self.xy - self.x * self.y / self.weight
        slope = covariance / (self.xx - self.x * self.x / self.weight + SLOPE_PRIOR)
        return max(SLOPE_RANGE[0], min(SLOPE_RANGE[1], slope))

    @property
    def spread(self) -> float:
        """Standard deviation of log(actual) around the regression; 0 with nothing observed."""
        if not self.weight:
            return 0.0
        variance_of_x = self.xx - self.x * self.x / self.weight
        covariance = self.xy - self.x * self.y / self.weight
        slope = self.slope
        residual = self.yy - self.y * self.y / self.weight - 2 * slope * covariance + slope * slope * variance_of_x
        return min(SPREAD_LIMIT, sqrt(max(0.0, residual) / self.weight))

    def log_service(self, declared: float) -> float:
        """The expected logarithm of the time in service, at the usual pace."""
        if not self.weight:
            return log(declared)
        level = self.y / self.weight * self._trust
        return log(declared) + level + self.slope * (log(declared) - self.x / self.weight)

    def service_seconds(self, declared: float) -> float:
        """The expected time in service at the usual pace: the mean of a log-normal, which is above its median."""
        if not self.weight:
            return declared
        return exp(self.log_service(declared) + self._trust * self.spread**2 / 2)

    @property
    def _trust(self) -> float:
        return self.weight / (self.weight + LEVEL_PRIOR)


NO_FIT = Fit()
