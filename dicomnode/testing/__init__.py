"""For extenders and for our own tests: contract suites, scripted peers, phantom studies."""
