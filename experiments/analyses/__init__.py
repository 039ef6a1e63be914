"""Tables and measurements that the comparison of methods does not make; each file is a command."""
