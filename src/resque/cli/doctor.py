"""``resque doctor``: what this machine offers."""

from resque.cli import options as opt


def doctor(
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Show which meter, region, devices and extras this machine offers.

    Example: resque doctor --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.reporting import console, sentences, tables
    from resque.workflows import diagnostics

    meter, grid = open_meter(), named_grid(country, intensity, pue)
    facts = diagnostics.machine_facts(meter)
    if as_json:
        console.print_json({**facts, "region": console.to_json(grid)})
        return
    tables.show_facts({**facts, "region": sentences.grid_sentence(grid)})
    for warning in diagnostics.machine_warnings(meter):
        console.warn(warning)
