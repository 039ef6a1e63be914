"""Experiments that compare Memory Aware Synapses with other ways to learn tasks in sequence."""
