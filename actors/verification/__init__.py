"""The verifications that need the whole department: who may do what, and what is kept secret.

world           one of everything, of one organization
authorization   every operation with every kind of caller
secrets         canaries in every secret, searched for in everything that is written or told
"""
