"""Tables of money: budgets, credits, invoices. Amounts are integer micro-dollars, those of invoices cents."""
