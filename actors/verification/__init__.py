"""The verifications that need the whole department: who may do what, and what is kept secret.

world           one of everything, of one organization
authorization   every operation with every kind of caller
secrets         canaries in every secret, searched for in everything that is written or told

The department's part of a chaos run (`runtime.verify.chaos.part`):

department        the part: people, what is deployed, what was done
target            what the deployment is made of
department_work   repositories, issues, and what the model says
department_facts  what was seen -> facts: pure
arrivals          what a bare repository has got
billing           what the provider bills
sandboxes         what a dead host's sandboxes still run
"""
