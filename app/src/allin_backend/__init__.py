"""The AllIN platform's backend.

Importing this package imports nothing else, so that tools can read the metric contract without the service's
dependencies.
"""

__version__ = "0.1.0"
