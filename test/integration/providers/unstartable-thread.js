throw new Error('the weights are gone')
