"""Who may use which instance. Behind your own login this would look at who calls."""


def authorize(request, agent, id):
    return id.startswith("ticket-")
