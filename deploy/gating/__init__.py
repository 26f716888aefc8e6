"""The gate as a command: two versions found, measured in turn on one device, and judged.

``sides`` finds the versions, ``meeting`` says which files of them are compared, ``comparing`` is
the way from there to a verdict, ``folder`` keeps what was measured. What decides is
:mod:`deploy.report.gate`.
"""
