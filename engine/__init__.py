"""What every script shares: configuration, checkpoints, commands, runs. Knows no network and no dataset."""
