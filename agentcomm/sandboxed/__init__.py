"""What runs on the other side of the fence; standard library only, started by ``agentcomm.sandbox``."""
