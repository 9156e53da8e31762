curl https://pilot.owkai.app/health
